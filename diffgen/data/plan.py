"""What is cut from which source, and on which side of the split: pure planning, no pixels are read.

Invariants: no pixel of a source is in a training patch and in a test patch, whatever their kinds. Either
whole sources go to one side, or each source is cut once and patches are laid within the parts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha1
from math import ceil
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from diffgen.config import Settings
from diffgen.data.classes import Classes
from diffgen.data.report import Report, listed
from diffgen.data.scan import Scan
from diffgen.data.tissue import Mask
from diffgen.errors import UserError, counted

Split = Literal["train", "test"]
Kind = Literal["image", "mask"]
Rectangle = tuple[int, int, int, int]
"""Left, top, width, height, in pixels of the training images."""

WHOLE_SOURCES = 10
"""From so many sources on, whole sources go to the test side."""


@dataclass(frozen=True)
class PatchBox:
    """A patch to be cut: place and size in pixels of the training images."""

    kind: Kind
    split: Split
    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class SourcePlan:
    """What is cut from one source."""

    scan: Scan
    parts: Mapping[Split, Rectangle]
    patches: Sequence[PatchBox]


@dataclass(frozen=True)
class PatchLayout:
    """Sides and steps of the patches, in pixels of the training images."""

    stored: int
    """Side of a stored image patch; where a part is smaller, down to `least`."""
    least: int
    multiple: int
    """Sides that are cut down stay a multiple of it (the pixels of a latent pixel)."""
    step: int
    mask_side: int
    mask_step: int
    min_tissue: float

    @classmethod
    def of(cls, settings: Settings) -> "PatchLayout":
        stored, factor = 2 * settings.image_patch_px, settings.mask_pixel_px
        pixels = settings.mask_model.patch_pixels
        return cls(
            stored=stored,
            least=settings.widest_patch_px,
            multiple=settings.autoencoder.factor,
            step=max(1, round(settings.prepare.stride * stored)),
            mask_side=pixels * factor,
            mask_step=max(1, round(settings.prepare.mask_stride * pixels)) * factor,
            min_tissue=settings.prepare.min_tissue,
        )


def plan_patches(
    scans: Sequence[Scan],
    settings: Settings,
    classes: Classes,
    report: Report,
    sides: Mapping[str, str] = MappingProxyType({}),
) -> list[SourcePlan]:
    """Plans of all sources that have an image patch (label maps: a mask patch); the report names the others.

    `sides`: of the groups that are there already (`Earlier.sides`).
    `UserError` if there is no patch at all.
    """
    layout, maps = PatchLayout.of(settings), settings.prepare.labels == "maps"
    plans, small = [], []
    least = layout.mask_side if maps else layout.least
    all_parts = split(scans, settings.prepare.test_share, least, sides)
    for scan, parts in zip(scans, all_parts, strict=True):
        laid = lay(scan, parts, layout, "mask" if maps else "image")
        if not laid:
            what = "known pixels" if maps else "tissue"
            report.leave_out(f"no patch with {layout.min_tissue:.0%} {what}", scan.source.name)
            continue
        if not maps and classes.labelled(scan.source):
            if min(scan.width, scan.height) < layout.mask_side:
                small.append(scan.source.name)
            laid += lay(scan, parts, layout, "mask")
        plans.append(SourcePlan(scan, parts, laid))
    if not plans:
        raise UserError(report.nothing())
    if assumed := [plan.scan.source.name for plan in plans if plan.scan.assumed]:
        report.notes.append(
            f"{counted(len(assumed), 'file')} without µm per pixel of their own: "
            f"{settings.prepare.assume_mpp:g} is assumed, as you said ({listed(assumed)})"
        )
    if small:
        report.notes.append(
            f"too small for a mask patch ({layout.mask_side} px): "
            f"{counted(len(small), 'file')} ({listed(small)})"
        )
    kinds = {(patch.kind, patch.split) for plan in plans for patch in plan.patches}
    if settings.prepare.test_share and ("mask" if maps else "image", "test") not in kinds:
        report.notes.append("no test patches: the sources are too small, or too few, for a test part")
    elif settings.prepare.test_share and ("mask", "train") in kinds and ("mask", "test") not in kinds:
        report.notes.append("no mask patches for testing: the test parts are smaller than a mask patch")
    return plans


def split(
    scans: Sequence[Scan],
    test_share: float,
    least: int,
    there: Mapping[str, str] = MappingProxyType({}),
) -> list[dict[Split, Rectangle]]:
    """For each source, the part of it on either side of the split.

    Whole groups where sources have groups or a table says their sides, those without a side for training.
    With `WHOLE_SOURCES` or more, or where no source is long enough to be cut (a test part is at least
    `least` long), whole sources: those whose groups' names hash lowest. Else each source is cut once,
    across the longer axis of its tissue, at 1 − test_share of it; one too short to be cut is for training.
    """
    said = any(scan.source.split for scan in scans)
    if test_share == 0 and not said:
        return [{"train": (0, 0, scan.width, scan.height)} for scan in scans]
    # A patient is never on both sides.
    grouped = said or any(scan.source.group for scan in scans)
    halves = any("+" in side for side in there.values())
    if there and not halves:
        grouped = True
    cut = [] if grouped else [_cut(scan, test_share, least) for scan in scans]
    if not grouped and (
        halves or (len(scans) < WHOLE_SOURCES and (len(scans) == 1 or any("test" in p for p in cut)))
    ):
        return cut
    sides: dict[str, Split] = {name: "test" if side == "test" else "train" for name, side in there.items()}
    groups = [scan.source.kin or scan.source.group or scan.source.name for scan in scans]
    for scan, group in zip(scans, groups, strict=True):
        if scan.source.split is not None:
            sides[group] = "test" if scan.source.split == "test" else "train"
    ordered = sorted(set(groups) - set(sides), key=lambda name: sha1(name.encode()).digest())
    others = sum(side == "test" for side in sides.values())
    wanted = 0 if said else max(0, ceil(test_share * (len(ordered) + len(there))) - others)
    sides |= {group: "test" if n < wanted else "train" for n, group in enumerate(ordered)}
    if not said and not there and len(ordered) == 1:
        sides = dict.fromkeys(sides, "train")
    return [
        {sides[group]: (0, 0, scan.width, scan.height)} for scan, group in zip(scans, groups, strict=True)
    ]


def _cut(scan: Scan, test_share: float, least: int) -> dict[Split, Rectangle]:
    left, top, width, height = bounding_box(scan)
    start, length = (left, width) if width > height else (top, height)
    at = start + round((1 - test_share) * length)
    if start + length - at < least or at < least:
        return {"train": (0, 0, scan.width, scan.height)}
    if width > height:
        return {"train": (0, 0, at, scan.height), "test": (at, 0, scan.width - at, scan.height)}
    return {"train": (0, 0, scan.width, at), "test": (0, at, scan.width, scan.height - at)}


def bounding_box(scan: Scan) -> Rectangle:
    """Smallest rectangle that holds all tissue."""
    rows, columns = np.flatnonzero(scan.tissue.any(axis=1)), np.flatnonzero(scan.tissue.any(axis=0))
    sx, sy = scan.width / scan.tissue.shape[1], scan.height / scan.tissue.shape[0]
    left, top = int(columns[0] * sx), int(rows[0] * sy)
    return left, top, ceil((columns[-1] + 1) * sx) - left, ceil((rows[-1] + 1) * sy) - top


def lay(scan: Scan, parts: Mapping[Split, Rectangle], layout: PatchLayout, kind: Kind) -> list[PatchBox]:
    """Patches of a kind within the parts of a source that hold enough tissue, row by row."""
    total = integral(scan.tissue)
    patches = []
    for side, (left, top, width, height) in parts.items():
        if kind == "image":
            w, h = (min(layout.stored, n) // layout.multiple * layout.multiple for n in (width, height))
            step = layout.step
            if min(w, h) < layout.least:
                continue
        else:
            w = h = layout.mask_side
            step = layout.mask_step
        for y in grid(height, h, step):
            for x in grid(width, w, step):
                patch = PatchBox(kind, side, left + x, top + y, w, h)
                if tissue_share(total, scan, patch) >= max(layout.min_tissue, 1e-9):
                    patches.append(patch)
    return patches


def grid(length: int, side: int, step: int) -> list[int]:
    """Starts of patches of `side` on a length: every `step`, the last one aligned to the end."""
    if side > length:
        return []
    return sorted({*range(0, length - side + 1, step), length - side})


def integral(tissue: Mask) -> NDArray[np.int64]:
    """(H + 1, W + 1) sums over all pixels above and to the left."""
    return np.pad(tissue.cumsum(axis=0, dtype=np.int64).cumsum(axis=1), ((1, 0), (1, 0)))


def tissue_share(total: NDArray[np.int64], scan: Scan, patch: PatchBox) -> float:
    """Share of tissue in a patch, by the pixels of the tissue mask that it touches."""
    rows, columns = scan.tissue.shape
    sx, sy = columns / scan.width, rows / scan.height
    left, top = int(patch.x * sx), int(patch.y * sy)
    right = min(columns, ceil((patch.x + patch.width) * sx - 1e-9))
    bottom = min(rows, ceil((patch.y + patch.height) * sy - 1e-9))
    count = total[bottom, right] - total[top, right] - total[bottom, left] + total[top, left]
    return float(count) / ((right - left) * (bottom - top))
