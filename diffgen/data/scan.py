"""The first look at a source: can it be used, how large is it, where is its tissue, what is in its mask.

A source that cannot be used is never an error of the run: its scan carries the reason. The other half
of the file decides, before any work starts, what the class ids mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffgen.config import Settings
from diffgen.data.maps import open_source, read_labels
from diffgen.data.report import counted
from diffgen.data.slides import MAX_ENLARGEMENT, LeftOut, Slide, mask_size, mask_values
from diffgen.data.sources import Source
from diffgen.data.stain import STAIN_CLASSES, STAIN_COLOURS, sample
from diffgen.data.tissue import TISSUE_UM, Mask, tissue_mask
from diffgen.errors import UserError
from diffgen.labels import MAX_CLASSES, Labels, default_colours


@dataclass(frozen=True)
class Scan:
    """What is known of a source before it is cut; sizes in pixels of the training images."""

    source: Source
    mpp: tuple[float, float]
    assumed: bool
    width: int
    height: int
    tissue: Mask
    """Of a label map: where it is known."""
    mask_values: tuple[int, ...] = ()
    stains: NDArray[np.float32] | None = None
    """(n, 2) haematoxylin and eosin, where the source gets its labels from the stains."""


def scan(source: Source, settings: Settings, classes: "Classes") -> Scan:
    """Open a source and look at it as a whole. Raises `LeftOut` with the reason if it cannot be used."""
    slide, assumed = open_source(source, settings.prepare.assume_mpp)
    if source.is_map:
        return _scan_map(source, slide, assumed, settings, classes)
    _check_scale(slide, settings)
    values: tuple[int, ...] = ()
    if source.mask:
        size = mask_size(source.mask)
        if size != slide.pixels.size:
            raise LeftOut("mask is {}x{}, image is {}x{}".format(*size, *slide.pixels.size))
        values = tuple(mask_values(source.mask))
    tissue = tissue_mask(slide.read(0, 0, *slide.size(TISSUE_UM), TISSUE_UM), TISSUE_UM)
    if not tissue.any():
        raise LeftOut("no tissue")
    from_stains = settings.prepare.labels == "stain" and not source.mask
    stains = sample(slide, tissue) if from_stains else None
    width, height = slide.size(settings.prepare.mpp)
    return Scan(source, slide.mpp, assumed, width, height, tissue, values, stains)


def _scan_map(source: Source, slide: Slide, assumed: bool, settings: Settings, classes: "Classes") -> Scan:
    um, mpp = settings.mask_model.pixel_um, settings.prepare.mpp
    side = settings.mask_model.patch_pixels * settings.mask_pixel_px
    if max(slide.mpp) > um:
        raise LeftOut(f"{max(slide.mpp):.3g} µm per pixel is too coarse for mask pixels of {um:g} µm")
    width, height = slide.size(mpp)
    if min(width, height) < side:
        raise LeftOut(f"smaller than a mask patch ({side} px at {mpp:g} µm per pixel)")
    table = classes.table(settings.prepare.mask_values)
    known = read_labels(source, slide, table, (0, 0, *slide.size(um)), um) > 0
    if not known.any():
        raise LeftOut("nothing in it is known")
    return Scan(source, slide.mpp, assumed, width, height, known, tuple(mask_values(source.path)))


def _check_scale(slide: Slide, settings: Settings) -> None:
    mpp, least = settings.prepare.mpp, settings.widest_patch_px
    if max(slide.mpp) > MAX_ENLARGEMENT * mpp:
        raise LeftOut(f"{max(slide.mpp):.3g} µm per pixel is too coarse for {mpp:g}")
    if min(slide.size(mpp)) < least:
        raise LeftOut(f"smaller than an image patch ({least} px at {mpp:g} µm per pixel)")


@dataclass(frozen=True)
class Classes:
    """The classes of the data set: their names by id, and which ids in masks and stains mean what."""

    labels: Labels
    named: frozenset[int] = frozenset()
    """Ids in masks that have a name."""
    stain_ids: tuple[int, ...] = ()
    """Class id of each of `STAIN_CLASSES`."""

    def table(self, mask_values: dict[int, int]) -> NDArray[np.uint8]:
        """(65536,) class id of each pixel value of a mask; 0 where it has no name."""
        ids = (mask_values.get(value, value) for value in range(65536))
        return np.array([i if i in self.named else 0 for i in ids], np.uint8)

    def unnamed(self, scan: Scan, mask_values: dict[int, int]) -> list[int]:
        """Ids in the mask of a source that have no name."""
        return sorted({mask_values.get(value, value) for value in scan.mask_values} - self.named - {0})


def decide_classes(sources: Sequence[Source], settings: Settings) -> tuple[Classes, list[Source], list[str]]:
    """Classes, the sources with the masks that will be used, and notes for the end of the run.

    Names come from `prepare.classes`, else from a `labels.json` with the sources. With `labels: stain`
    the classes of the stains follow those of the masks. Raises `UserError` where there are masks and no
    names, and where names contradict each other.
    """
    kind = settings.prepare.labels
    masked = sum(source.mask is not None for source in sources)
    without = [replace(source, mask=None) if source.mask else source for source in sources]
    if kind == "none":
        return Classes(Labels(("unknown",))), without, _unused(masked, "labels is 'none'")
    given = _given(sources, settings)
    if kind in {"masks", "maps"}:
        if masked and given is None:
            maps = kind == "maps"
            what = counted(masked, "label map") if maps else f"{counted(masked, 'source')} with a mask"
            raise UserError(
                f"{what}, but no class has a name: "
                "say --set 'prepare.classes={1: nuclei}', or put a labels.json beside them"
            )
        notes = (
            [] if masked else ["no source has a mask: nothing is labelled (--labels stain makes weak labels)"]
        )
        return given or Classes(Labels(("unknown",))), list(sources), notes
    base = given if given and masked else Classes(Labels(("unknown",)))
    unused = _unused(masked, "no class has a name (prepare.classes)") if given is None else []
    return _with_stains(base), list(sources) if given else without, unused


def _unused(masked: int, why: str) -> list[str]:
    return [f"masks of {counted(masked, 'file')} are not used: {why}"] if masked else []


def _given(sources: Sequence[Source], settings: Settings) -> Classes | None:
    names = settings.prepare.classes
    if names:
        if min(names) < 0 or max(names) >= MAX_CLASSES or names.get(0, "unknown") != "unknown":
            raise UserError(f"prepare.classes {names}: ids run from 1 to {MAX_CLASSES - 1}; 0 is 'unknown'")
        listed = ["unknown", *(names.get(i, f"unused {i}") for i in range(1, max(names) + 1))]
        return Classes(Labels(tuple(listed)), frozenset(names))
    files = sorted(Path(root) / "labels.json" for root in {source.root for source in sources})
    found = [(file, Labels.load(file)) for file in files if file.is_file()]
    for file, labels in found[1:]:
        if labels.classes != found[0][1].classes:
            raise UserError(f"{file}: other classes than in {found[0][0]}")
    if not found:
        return None
    labels = found[0][1]
    return Classes(Labels(labels.classes, colours=labels.colours), frozenset(range(len(labels))))


def _with_stains(base: Classes) -> Classes:
    """The classes with those of the stains after them; a name that is there already keeps its id."""
    added = [name for name in STAIN_CLASSES if name not in base.labels.classes]
    classes = (*base.labels.classes, *added)
    colours = (*base.labels.colours, *(STAIN_COLOURS[STAIN_CLASSES.index(name)] for name in added))
    ids = tuple(classes.index(name) for name in STAIN_CLASSES)
    return Classes(Labels(classes, colours=colours or default_colours(len(classes))), base.named, ids)
