"""A sampler: weights and no state, a pure function from a lease's work to its results.

Micro-batch and threads are settings that shape the sample, the same inline and under Ray: results
are equal byte for byte whatever came before and whatever else is in the lease.
"""

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from diffgen import config, label_maps
from diffgen.errors import UserError
from diffgen.labels import Picture
from diffgen.models import bundle
from diffgen.sampling import decode, masks
from diffgen.sampling.canvas import NonFiniteError, Patch
from diffgen.sampling.covers import shifted
from diffgen.sampling.denoise import (
    Conditioning,
    Denoiser,
    batch_size,
    conditions,
    estimate,
)
from diffgen.sampling.guidance import Guidance
from diffgen.synthesis.image_job import LabelMapJob, LabelMaps
from diffgen.synthesis.leases import Lease, PatchBatch, Result
from diffgen.synthesis.model_setup import model_setup
from diffgen.synthesis.region import MaskPart
from diffgen.synthesis.render import RenderJob, ScaledLabelMap, encode


class PatchModel(NamedTuple):
    """How the patches of one kind of canvas are estimated."""

    network: Any
    """A `Denoiser`: the U-Net; none where the bundle lacks it, and nothing asks for it."""
    base: int
    """Patch side whose forwards are the unit of cost."""
    guidance: Guidance
    conditioning: Conditioning
    worse: Denoiser | None = None
    """What `auto` guidance leads away from."""


class Sampler:
    """U-Nets and autoencoder of a bundle on one device."""

    def __init__(self, folder: Path, sampling: config.Sampling, gpu: bool | None = None) -> None:
        """On a GPU if `gpu`, by default where there is one. Raises `UserError` where torch cannot use it."""
        torch.set_num_threads(sampling.threads)
        there = torch.cuda.is_available()
        if gpu and not there:
            raise UserError("Ray gives it a GPU, but torch cannot use one: its build or the driver")
        self.device = torch.device("cuda" if there and gpu is not False else "cpu")
        self.bundle = bundle.load(folder).to(self.device)
        self.sampling = sampling = sampling.on(self.device.type == "cuda")
        self.bf16 = sampling.precision == "bf16"
        for unet in (self.bundle.image_unet, self.bundle.mask_unet, self.bundle.image_guide):
            if self.bf16 and unet is not None:
                unet.to(memory_format=torch.channels_last)
            if sampling.compile and unet is not None:
                unet.compile(mode="reduce-overhead" if self.device.type == "cuda" else "default")
        if self.device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = True  # where fp32 is asked for, as convolutions have it
        facts = self.bundle.facts
        self.tiling = decode.tiling(sampling.decode_tile, sampling.decode_overlap, facts.reach)
        made, self.models = self.bundle, dict[str, PatchModel]()
        networks = {"mask": (made.mask_unet, None), "image": (made.image_unet, made.image_guide)}
        for kind, (unet, worse) in networks.items():
            setup = model_setup(kind, facts, made.labels, made.schedule, sampling)
            self.models[kind] = PatchModel(unet, setup.base, *setup.guidance, worse)

    def parameters(self) -> list[torch.Tensor]:
        """The weights of all models that are there."""
        made = self.bundle
        parts = (
            made.image_unet, made.image_guide, made.mask_unet, made.codec.model, made.mask_autoencoder,
        )  # fmt: skip
        return [parameter for part in parts if part is not None for parameter in part.parameters()]

    def compute(self, lease: Lease) -> Result:
        """The device's part; `finish` does the rest. An autoencoder's `NonFiniteError` is a result."""
        began = time.perf_counter()
        work = lease.work
        if isinstance(work, PatchBatch):
            network, base, guidance, conditioning, worse = self.models[lease.kind]
            patches, shape = work.each(), work.labels.shape[1:]
            size = batch_size(self.sampling.batch, base, shape)
            estimates = estimate(network, patches, guidance, conditioning, size, worse, self.bf16)
            return self._counted(np.concatenate(estimates, axis=1), patches, lease.kind, size, began)
        made: LabelMaps | Picture | NonFiniteError
        try:
            if isinstance(work, LabelMapJob):
                made = self.label_maps(work)
            else:
                assert work is not None
                made = decode.decode_region(
                    self.bundle.codec.decode, work.latents, work.window, work.canvas, work.region.box,
                    self.bundle.facts.factor, self.tiling,
                )  # fmt: skip
        except NonFiniteError as error:
            made = error
        return Result(made, seconds=time.perf_counter() - began)

    def finish(self, lease: Lease, computed: Result) -> Result:
        """PNGs of what was rendered, which may be made beside the next lease."""
        if not isinstance(lease.work, RenderJob) or isinstance(computed.result, NonFiniteError):
            return computed
        labels, facts = self.bundle.labels, self.bundle.facts
        made = encode(computed.result, lease.work, labels, facts.factor, facts.mpp)
        return replace(computed, result=made)

    def _counted(
        self, estimates: np.ndarray, patches: list[Patch], kind: str, size: int, began: float
    ) -> Result:
        """Estimates with their forwards of the base patch, and the same with the padding."""
        _, base, guidance, conditioning, _ = self.models[kind]
        own = others = 0
        for patch in patches:
            here = guidance.at(patch.log_snr)
            needed = len(conditions(patch.labels, patch.owned, here, conditioning))
            own, others = own + needed, others + needed * bool(here.by_network)
        rows, slots = own + others, sum(-(-count // size) * size for count in (own, others))
        cost = patches[0].labels.size / base**2
        return Result(estimates, round(rows * cost), round(slots * cost), time.perf_counter() - began)

    def label_maps(self, item: LabelMapJob) -> LabelMaps:
        """Mask canvas → label map at the mask's scale, cleaned; and at the latent grid of the image.

        The label map may reach beyond the image, as the canvas does. Raises `NonFiniteError`.
        """
        facts, sampling = self.bundle.facts, self.sampling
        reach = facts.reach if self.bundle.mask_autoencoder is None else None
        how = decode.tiling(sampling.decode_tile, sampling.decode_overlap, reach)
        least = round(sampling.min_region_um2 / facts.mask_pixel_um**2)
        if item.part is not None:
            return self._part_of_label_map(item.latents, item.part, how, least)
        windows = partial(decode.decode, how=how)
        drawn = self.bundle.mask_codec.decode(item.latents, windows)
        cleaned = masks.clean(drawn, least)
        rows, columns = (label_maps.grid_pixels(side, facts.factor) for side in (item.height, item.width))
        return LabelMaps(cleaned, ScaledLabelMap(cleaned, facts.mask_pixel_px).pixels(rows, columns))

    def _part_of_label_map(
        self, latents: NDArray[np.float32], part: MaskPart, how: decode.Tiling, least: int
    ) -> LabelMaps:
        """What is asked of a part of a mask canvas, and whether it is sure to be as in the whole."""
        facts, codec = self.bundle.facts, self.bundle.mask_codec
        y0, x0, y1, x1 = (side // facts.mask_factor for side in part.drawn)

        def windows(decoder: decode.Decoder, crop: NDArray[np.float32], factor: int) -> Picture:
            return decode.decode_region(
                decoder, crop, part.latents, part.canvas, (y0, x0, y1, x1), factor, how
            )

        cleaned, sure = masks.clean_part(codec.decode(latents, windows), least, part.drawn, part.whole)
        top, left, bottom, right = part.asked
        asked = shifted((slice(top, bottom), slice(left, right)), part.drawn[:2])
        cut = np.ascontiguousarray(cleaned[asked])
        a, b, c, d = (side * facts.factor for side in part.window)
        rows, columns = (
            start + label_maps.grid_pixels(end - start, facts.factor) for start, end in ((a, c), (b, d))
        )
        labelled = ScaledLabelMap(cut, facts.mask_pixel_px, (top, left), part.whole)
        return LabelMaps(cut, labelled.pixels(rows, columns), bool(sure[asked].all()))
