"""Grids of samples during training: one-patch canvases under fixed seeds and held-out label maps."""

import numpy as np
from einops import rearrange
from torch import nn

from diffgen import config
from diffgen.data.stream import PatchTable
from diffgen.label_maps import on_grid
from diffgen.labels import LabelMap, Picture
from diffgen.models.bundle import Bundle
from diffgen.sampling import covers
from diffgen.sampling.canvas import Canvas, GlobalCondition
from diffgen.sampling.covers import CoverSchedule
from diffgen.sampling.decode import Tiling, decode
from diffgen.sampling.guidance import NONE, Guidance
from diffgen.sampling.loop import sample
from diffgen.sampling.seeds import Purpose, generator
from diffgen.sampling.solvers import Solver

COUNT = 8
PURPOSES = (Purpose.TRAINING_SAMPLES, Purpose.IMAGE_STEP_NOISE)


def held_out_maps(patches: PatchTable, side: int) -> list[LabelMap]:
    """Up to eight label maps (side, side), evenly spread over the labelled patches, from their top left."""
    if not len(patches.labelled):
        return [np.zeros((side, side), np.uint8)] * COUNT
    numbers = patches.labelled[np.linspace(0, len(patches.labelled) - 1, COUNT).astype(int)]
    return [patches.label_map(int(number))[:side, :side] for number in numbers]


def image_grid(
    unet: nn.Module, bundle: Bundle, label_maps: list[LabelMap], settings: config.Settings
) -> Picture:
    """Label maps in their colours, and below each the image that fills it."""
    facts, sampling = bundle.facts, settings.sampling
    conditioning = settings.image_model.conditioning
    steps = sampling.steps_for(len(facts.patch_by_log_snr))
    canvases = [
        _canvas(
            k,
            facts.image_channels,
            on_grid(label_map, facts.factor),
            steps,
            bundle,
            settings,
            _drawn(k, bundle, settings.seed),
        )
        for k, label_map in enumerate(label_maps)
    ]
    filled = sample(canvases, unet, NONE, conditioning, COUNT)
    pictures = [
        decode(bundle.codec.decode, latents, facts.factor, Tiling(latents.shape[1], 0.0))
        for latents in filled
    ]
    rows = np.stack([[bundle.labels.paint(label_map) for label_map in label_maps], pictures])
    return rearrange(rows, "row k h w z -> (row h) (k w) z")


def mask_grid(unet: nn.Module, bundle: Bundle, settings: config.Settings) -> Picture:
    """Eight label maps of the mask model, contexts by turns; each pixel of its canvas at least four wide."""
    facts, labels, sampling = bundle.facts, bundle.labels, settings.sampling
    codec, steps = bundle.mask_codec, sampling.mask_steps
    contexts = [
        np.full((facts.mask_patch,) * 2, 1 + k % len(labels.contexts), np.uint8) for k in range(COUNT)
    ]
    canvases = [
        _canvas(k, codec.channels, context, steps, bundle, settings) for k, context in enumerate(contexts)
    ]
    drawn = sample(canvases, unet, Guidance(sampling.mask_guidance), "per_label", COUNT)
    maps = np.stack([labels.paint(codec.decode(latents)) for latents in drawn])
    times = max(1, 4 // codec.factor)
    large = maps.repeat(times, axis=1).repeat(times, axis=2)
    return rearrange(large, "(row k) h w z -> (row h) (k w) z", row=2)


def _drawn(k: int, bundle: Bundle, seed: int) -> GlobalCondition | None:
    """A look for each map of a grid; its context is the null one, as maps are of many."""
    if bundle.appearance is None:
        return GlobalCondition() if bundle.facts.image_contexts else None
    return GlobalCondition(0, bundle.appearance.draw(generator(seed, k, Purpose.APPEARANCE)))


def _canvas(
    k: int,
    channels: int,
    label_map: LabelMap,
    steps: int,
    bundle: Bundle,
    settings: config.Settings,
    whole: GlobalCondition | None = None,
) -> Canvas:
    sampling, side = settings.sampling, label_map.shape[0]
    solver = Solver(sampling.solver, bundle.schedule, steps, sampling.eta, sampling.spacing)
    one = CoverSchedule(
        side, side, ((None, side),), tuple(solver.log_snr), covers.CoverRule("aligned", 0.0, 0.0),
        (settings.seed, k), Purpose.IMAGE_COVER,
    )  # fmt: skip
    return Canvas(channels, label_map, one, solver, PURPOSES, whole=whole)
