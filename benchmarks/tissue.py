"""What the benchmarks of training share: real held-out tissue, tissue drawn under its label maps, features.

Features are of EfficientNet-Lite0, which never saw tissue. Crops of one image are alike, and so are a crop
and what is drawn under its label map. So all averages over pairs leave pairs of one source out, and all
intervals come from drawing whole sources again (diffgen/evaluation), the same ones for whatever is compared.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2hed

from diffgen import config
from diffgen.data.stream import PatchTable
from diffgen.evaluation import backbones
from diffgen.evaluation.bootstrap import as_json
from diffgen.label_maps import on_grid
from diffgen.labels import LabelMap, Picture
from diffgen.models.bundle import Bundle
from diffgen.sampling import loop
from diffgen.sampling.decode import Tiling, decode, tiling
from diffgen.synthesis.model_setup import ModelSetup, model_setup

PICTURES_AT_ONCE = 16


@dataclass(frozen=True)
class Tissue:
    """N pictures of one size with their label maps, and the number of the source that each is from."""

    pictures: NDArray[np.uint8]
    """(N, H, W, 3)"""
    maps: NDArray[np.uint8]
    """(N, H, W)"""
    source: NDArray[np.intp]
    """(N,)"""

    def __len__(self) -> int:
        return len(self.pictures)

    def drawn(self, pictures: NDArray[np.uint8]) -> "Tissue":
        """Other pictures under the same label maps."""
        return Tissue(pictures, self.maps, self.source)


def crops(patches: PatchTable, side: int, count: int, first_source: int = 0) -> Tissue:
    """`count` crops of `side` pixels, on a grid in the stored patches, as many of each source as can be.

    Sources are numbered in their order from `first_source` on.
    """
    names = sorted({row["source"] for row in patches.rows})
    rng, by_source = np.random.default_rng(0), dict[str, list[tuple[int, int, int]]]()
    for number, row in enumerate(patches.rows):
        places = [
            (number, y, x)
            for y in range(0, row["height"] - side + 1, side)
            for x in range(0, row["width"] - side + 1, side)
        ]
        by_source.setdefault(row["source"], []).extend(places)
    turns = [[name, *place] for name in names for place in rng.permutation(by_source[name]).tolist()]
    order = [k for name in names for k in range(len(by_source[name]))]
    chosen = [turns[i] for i in sorted(np.argsort(order, kind="stable")[:count])]
    cut = [np.s_[y : y + side, x : x + side] for _, _, y, x in chosen]
    return Tissue(
        np.stack([patches.picture(c[1])[box] for c, box in zip(chosen, cut, strict=True)]),
        np.stack([patches.label_map(c[1])[box] for c, box in zip(chosen, cut, strict=True)]),
        np.array([first_source + names.index(c[0]) for c in chosen]),
    )


def whole(patches: PatchTable, side: int) -> Tissue:
    """The top left `side`² pixels of every source, put together from its stored patches."""
    pieces: dict[str, tuple[Picture, LabelMap, NDArray[np.bool_]]] = {}
    for number, row in enumerate(patches.rows):
        blank = (
            np.zeros((side, side, 3), np.uint8),
            np.zeros((side, side), np.uint8),
            np.zeros((side,) * 2, bool),
        )
        picture, labels, seen = pieces.setdefault(row["source"], blank)
        y, x = row["y"], row["x"]
        height, width = min(row["height"], side - y), min(row["width"], side - x)
        if height <= 0 or width <= 0:
            continue
        box = np.s_[y : y + height, x : x + width]
        picture[box] = patches.picture(number)[:height, :width]
        labels[box] = patches.label_map(number)[:height, :width]
        seen[box] = True
    full = [piece for _, piece in sorted(pieces.items()) if piece[2].all()]
    if not full:
        raise SystemExit(f"{patches.folder}: no test source is whole over {side} pixels")
    return Tissue(np.stack([p[0] for p in full]), np.stack([p[1] for p in full]), np.arange(len(full)))


def latent_map(label_map: LabelMap, factor: int) -> LabelMap:
    """A label map as the model sees it, on the latent grid."""
    return on_grid(label_map, factor)


def sampler(bundle: Bundle, sampling: config.Sampling, seed: int = 0) -> ModelSetup:
    """How the bundle's image model is sampled from."""
    return model_setup("image", bundle.facts, bundle.labels, bundle.schedule, sampling, seed)


def paint(
    bundle: Bundle, unet: Any, sampling: config.Sampling, tissue: Tissue, at_once: int = PICTURES_AT_ONCE
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Pictures (N, H, W, 3) drawn under the label maps of `tissue`, and their latents (N, C, h, w).

    Sample k has the seed (0, k), whatever the weights.
    """
    facts, model = bundle.facts, sampler(bundle, sampling)
    blended = tiling(sampling.decode_tile, sampling.decode_overlap, facts.reach)
    unet.eval()
    pictures, latents = [], []
    for start in range(0, len(tissue), at_once):
        chosen = range(start, min(start + at_once, len(tissue)))
        canvases = [model.canvas(latent_map(tissue.maps[k], facts.factor), k) for k in chosen]
        for done in loop.sample(canvases, unet, *model.guidance, sampling.on(gpu=False).batch):
            how = blended if done.shape[1] != done.shape[2] else Tiling(done.shape[1], 0)  # in one window
            pictures.append(decode(bundle.codec.decode, done, facts.factor, how))
            latents.append(done)
    return np.stack(pictures), np.stack(latents)


class Features:
    """EfficientNet-Lite0 before its last layer: pictures (N, H, W, 3) → (N, 1280)."""

    def __init__(self) -> None:
        self.network = backbones.load("efficientnet-lite0")

    def __call__(self, pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
        starts = range(0, len(pictures), PICTURES_AT_ONCE)
        found = [self.network(pictures[start : start + PICTURES_AT_ONCE])[0] for start in starts]
        return np.concatenate(found).astype(np.float64)


def haematoxylin(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(N, H, W): haematoxylin by colour deconvolution (Ruifrok and Johnston, 2001)."""
    return np.stack([rgb2hed(picture)[..., 0] for picture in pictures])


def contrast(pictures: NDArray[np.uint8], maps: NDArray[np.uint8], label: int) -> NDArray[np.float64]:
    """(N,): mean haematoxylin under `label` less that of all else in a picture; NaN where one is absent."""
    stain, inside = haematoxylin(pictures), maps == label
    with np.errstate(invalid="ignore"):
        return np.array(
            [
                s[m].mean() - s[~m].mean() if m.any() and not m.all() else np.nan
                for s, m in zip(stain, inside, strict=True)
            ]
        )


def write_json(path: Path | None, found: dict[str, Any]) -> None:
    if path:
        path.write_text(json.dumps(as_json(found), indent=2) + "\n", encoding="utf-8")
