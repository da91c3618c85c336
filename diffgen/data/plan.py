"""The plan of a run: what is cut from which source, for which side; what that leaves out, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from diffgen.config import Settings
from diffgen.data.patches import Extent, Kind, PatchBox, PatchLayout, Rectangle, Split, lay, split
from diffgen.data.report import LeftOuts, counted, listed
from diffgen.data.scan import Scan
from diffgen.errors import UserError


@dataclass(frozen=True)
class SourcePlan:
    """What is cut from one source."""

    scan: Scan
    parts: Mapping[Split, Rectangle]
    patches: Sequence[PatchBox]


def plan_patches(
    scans: Sequence[Scan],
    settings: Settings,
    stained: bool,
    left: LeftOuts,
    notes: list[str],
    groups: Mapping[str, str] | None = None,
) -> list[SourcePlan]:
    """Plans of all sources that have an image patch (label maps: a mask patch); the others go to `left`.

    `UserError` if none has.
    """
    layout, maps = layout_of(settings), settings.prepare.labels == "maps"
    kind: Kind = "mask" if maps else "image"
    extents = [
        Extent(name := item.source.name, item.width, item.height, item.tissue, (groups or {}).get(name, name))
        for item in scans
    ]
    plans, small = [], []
    parts = split(extents, settings.prepare.test_share, layout.mask_side if maps else layout.least)
    for item, extent, sides in zip(scans, extents, parts, strict=True):
        laid = lay(extent, sides, layout, kind)
        if not laid:
            what = "known pixels" if maps else "tissue"
            left.add(f"no patch with {settings.prepare.min_tissue:.0%} {what}", item.source.name)
            continue
        if not maps and (item.source.mask or stained):
            if min(item.width, item.height) < layout.mask_side:
                small.append(item.source.name)
            laid += lay(extent, sides, layout, "mask")
        plans.append(SourcePlan(item, sides, laid))
    if not plans:
        raise UserError(f"nothing could be prepared ({left.first()})")
    notes += _plan_notes(plans, small, settings)
    return plans


def _plan_notes(plans: Sequence[SourcePlan], small: Sequence[str], settings: Settings) -> list[str]:
    notes = []
    assumed = [plan.scan.source.name for plan in plans if plan.scan.assumed]
    if assumed:
        mpp = settings.prepare.assume_mpp
        notes.append(
            f"{counted(len(assumed), 'file')} without µm per pixel of their own: {mpp:g} is assumed, "
            f"as you said ({listed(assumed)})"
        )
    if small:
        side = layout_of(settings).mask_side
        notes.append(
            f"too small for a mask patch ({side} px): {counted(len(small), 'file')} ({listed(small)})"
        )
    kinds = {(patch.kind, patch.split) for plan in plans for patch in plan.patches}
    first = "mask" if settings.prepare.labels == "maps" else "image"
    if settings.prepare.test_share and (first, "test") not in kinds:
        notes.append("no test patches: the sources are too small, or too few, for a test part")
    elif settings.prepare.test_share and ("mask", "train") in kinds and ("mask", "test") not in kinds:
        notes.append("no mask patches for testing: the test parts are smaller than a mask patch")
    return notes


def layout_of(settings: Settings) -> PatchLayout:
    """Sides and steps of the patches, in pixels of the training images."""
    stored, factor = 2 * settings.image_patch_px, settings.mask_pixel_px
    pixels = settings.mask_model.patch_pixels
    return PatchLayout(
        stored=stored,
        least=settings.widest_patch_px,
        multiple=settings.autoencoder.factor,
        step=max(1, round(settings.prepare.stride * stored)),
        mask_side=pixels * factor,
        mask_step=max(1, round(settings.prepare.mask_stride * pixels)) * factor,
        min_tissue=settings.prepare.min_tissue,
    )
