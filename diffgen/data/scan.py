"""The first look at a source: can it be used, how large is it, where is its tissue, what is in its labels."""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffgen.config import Settings
from diffgen.data import annotations, focus
from diffgen.data.classes import Classes
from diffgen.data.formats.base import TURNED, Header, LeftOut
from diffgen.data.formats.scale import settled
from diffgen.data.masks import count_instances, load_mask, pixel_counts, placed
from diffgen.data.slides import MAX_ENLARGEMENT, Slide, header, open_slide
from diffgen.data.sources import Source
from diffgen.data.stain import sample
from diffgen.data.tissue import TISSUE_UM, Mask, not_tissue, tissue_mask
from diffgen.errors import UserError
from diffgen.label_maps import DAMAGED
from diffgen.labels import Picture
from diffgen.shards import open_picture

OUTLINES_OF_A_TURNED_ONE = (
    "its EXIF orientation turns it, and tools differ in whether outlines count from the picture as it is "
    "stored or as it is shown: save it upright (vips autorot IN OUT.png) and draw on that"
)
FEW_COLOURS = 32
"""A picture of H&E has thousands; one with so few is a label map."""
LARGE_FILE = 2**23
"""Bytes of a picture below which it takes next to no memory."""
CROP = 256
"""Side in pixels of what is looked at to tell."""


@dataclass(frozen=True)
class Amount:
    """How much of a class a source's labels have."""

    shapes: int
    mm2: float


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
    header: Header | None = None
    digest: str = ""
    """Of its pixels: the same picture under two names has one."""
    amounts: dict[str, Amount] = field(default_factory=dict)
    """What its outlines are called, or its mask's values → how much of it there is."""
    foreign: dict[str, float] = field(default_factory=dict)
    """Share that is no tissue, by what it is: black, pen, blurred."""
    notes: tuple[str, ...] = ()


def scan(source: Source, settings: Settings, classes: Classes) -> Scan:
    """Open a source and look at it as a whole. Raises `LeftOut` with the reason if it cannot be used."""
    slide, assumed = opened(source, settings)
    return (_of_map if source.is_map else _of_picture)(source, slide, assumed, settings, classes)


def opened(source: Source, settings: Settings) -> tuple[Slide, bool]:
    """The source's slide by the settings, and whether its µm per pixel are assumed. Raises `LeftOut`."""
    prepare = settings.prepare
    override = source.mpp_by(prepare.mpp_override)
    return open_slide(source.path, prepare.assume_mpp, source.is_map, override, prepare.icc)


def check_header(source: Source, settings: Settings) -> None:
    """`LeftOut` where a source's header says that it cannot be used, or has no µm per pixel."""
    prepare = settings.prepare
    said = header(source.path)
    if said.problem and not source.is_map:
        raise LeftOut(said.problem)
    settled(said.mpp, prepare.assume_mpp, source.mpp_by(prepare.mpp_override), Path(source.path).name)


def memory_of(source: Source) -> int:
    """Bytes that reading a source and its mask may take; 0 where that is next to nothing."""
    needed = 0
    with suppress(OSError, LeftOut):
        if not source.is_map and Path(source.path).stat().st_size > LARGE_FILE:
            needed += header(source.path).memory
    if source.mask is not None:
        with suppress(*DAMAGED), open_picture(source.mask) as image:
            needed += image.width * image.height * 3  # as it is decoded, and as values
    return needed


def _of_map(source: Source, slide: Slide, assumed: bool, settings: Settings, classes: Classes) -> Scan:
    um, mpp = settings.mask_model.pixel_um, settings.prepare.mpp
    side = settings.mask_model.patch_pixels * settings.mask_pixel_px
    _check_scale(slide, um, f"mask pixels of {um:g} µm", mpp, side, "a mask patch")
    counts = _counts(source.path, slide, classes)[0]
    known = classes.read(source, slide, 0, 0, *slide.size(um), um)
    assert known is not None, "a label map has labels"
    if not (known > 0).any():
        raise LeftOut("nothing in it is known")
    amounts = _amounts(counts, slide, 1)
    size = slide.size(mpp)
    return Scan(source, slide.mpp, assumed, *size, known > 0, tuple(counts), amounts=amounts)


def _of_picture(source: Source, slide: Slide, assumed: bool, settings: Settings, classes: Classes) -> Scan:
    prepare = settings.prepare
    most = MAX_ENLARGEMENT * prepare.mpp
    _check_scale(slide, most, f"{prepare.mpp:g}", prepare.mpp, settings.widest_patch_px, "an image patch")
    notes: list[str] = []
    counts: dict[int, int] = {}
    amounts: dict[str, Amount] = {}
    if source.mask:
        counts, factor = _counts(source.mask, slide, classes, notes)
        amounts = _amounts(counts, slide, factor)
    elif source.outlines:
        try:
            drawn = annotations.load(source.outlines, source.name)
        except annotations.NoAnnotationsError as other:  # a JSON or XML file of something else
            source = replace(source, outlines=None)
            notes.append(f"not used: {other}")
        else:
            amounts = {name: Amount(*found) for name, found in annotations.amounts(drawn, slide).items()}
            notes += annotations.notes(drawn)
            if TURNED in header(source.path).notes:
                raise LeftOut(OUTLINES_OF_A_TURNED_ONE)
    overview = slide.read(0, 0, *slide.size(TISSUE_UM), TISSUE_UM)
    tissue = tissue_mask(overview, TISSUE_UM)
    if not tissue.any():
        raise LeftOut("no tissue")
    crop = _crop(slide, tissue)
    _check_colours(overview, crop)
    foreign = not_tissue(overview, TISSUE_UM)
    soft = focus.blurred(slide, tissue)
    if soft.any():
        foreign["blurred"] = float(soft.mean())
        tissue = tissue & ~soft
    stains = None
    if prepare.labels == "stain" and not source.mask and not source.outlines and tissue.any():
        own = sample(slide, tissue)
        stains, source = own.pixels, replace(source, stain=own.strength)
    digest = hashlib.sha1(repr(slide.pixels.size).encode() + overview.tobytes() + crop.tobytes()).hexdigest()
    return Scan(
        source, slide.mpp, assumed, *slide.size(prepare.mpp), tissue, tuple(counts), stains,
        header(source.path), digest, amounts, foreign, tuple(notes),
    )  # fmt: skip


def _counts(
    path: str, slide: Slide, classes: Classes, notes: list[str] | None = None
) -> tuple[dict[int, int], int]:
    """Pixels by value of a mask that lies on the slide, and level-0 pixels per mask pixel."""
    mask = load_mask(path, classes.colours)
    place = placed(mask, slide)
    if not place.exact and notes is not None:
        height, width = mask.shape
        notes.append(f"mask is {width}x{height}, a pixel off its image's size (1/{place.factor} of it)")
    counts = pixel_counts(mask)
    if classes.instances is None:
        objects = count_instances(mask, counts, classes.named | set(classes.values))
        if objects is not None:
            raise LeftOut(
                f"looks like an instance mask, an id for each of {objects} objects: say what they are, "
                "such as --set prepare.instances=nuclei"
            )
    return counts, place.factor


def _amounts(counts: dict[int, int], slide: Slide, factor: int) -> dict[str, Amount]:
    mm2 = slide.mpp[0] * slide.mpp[1] * factor**2 * 1e-6
    return {str(value): Amount(0, count * mm2) for value, count in counts.items()}


def _crop(slide: Slide, tissue: Mask) -> Picture:
    """Pixels of the slide at its own scale, from where its tissue begins."""
    row, column = np.argwhere(tissue)[0]
    um = max(slide.mpp)
    width, height = slide.size(um)
    left, top = (round(int(n) * TISSUE_UM / um) for n in (column, row))
    w, h = min(CROP, width), min(CROP, height)
    return slide.read(min(left, width - w), min(top, height - h), w, h, um)


def _check_colours(overview: Picture, crop: Picture) -> None:
    """`LeftOut` where a picture is no H&E: grey, or of a few colours, as label maps are."""
    colours = np.unique(crop.reshape(-1, 3), axis=0)
    if 1 < len(colours) <= FEW_COLOURS:
        raise LeftOut(
            f"looks like a label map, with {len(colours)} colours: give it the name of one (NAME_mask.png)"
        )
    if np.array_equal(overview[..., 0], overview[..., 1]) and np.array_equal(
        overview[..., 1], overview[..., 2]
    ):
        raise LeftOut("no colour in it: H&E is read in colour")


def _check_scale(slide: Slide, coarsest: float, wanted: str, mpp: float, least: int, patch: str) -> None:
    """`LeftOut` where pixels are larger than `coarsest` µm, or a side has fewer than `least` of `mpp` µm."""
    if max(slide.mpp) > coarsest:
        raise LeftOut(
            f"{max(slide.mpp):.3g} µm per pixel is too coarse for {wanted} (is it not: --mpp-override)"
        )
    if min(slide.size(mpp)) < least:
        raise LeftOut(f"smaller than {patch} ({least} px at {mpp:g} µm per pixel)")


def with_copies(scans: Sequence[Scan], there: Mapping[str, str]) -> tuple[list[Scan], dict[str, list[str]]]:
    """The scans, copies of one picture in one group; and the first name of each such picture → the others.

    `there`: digest of a picture that is in the data already → its group, or its name. Raises `UserError`
    where copies are said to be on other sides of the split: the table is wrong.
    """
    first: dict[str, Scan] = {}
    copies: dict[str, list[str]] = {}
    into: dict[str, str] = {}
    for item in scans:
        if name := there.get(item.digest):
            copies.setdefault(name, []).append(item.source.name)
            into[_root(item.source.group or item.source.name, into)] = name
            continue
        known = first.setdefault(item.digest or item.source.name, item)
        if known is not item:
            one, other = known.source, item.source
            if one.split != other.split:
                raise UserError(
                    f"{other.name} is the same picture as {one.name}, but on the other side of the split"
                )
            copies.setdefault(one.name, []).append(other.name)
            into[_root(other.group or other.name, into)] = _root(one.group or one.name, into)
    return [replace(item, source=replace(item.source, kin=_root(_kin(item), into))) for item in scans], copies


def _kin(item: Scan) -> str:
    return item.source.group or item.source.name


def _root(group: str, into: dict[str, str]) -> str:
    while into.get(group, group) != group:
        group = into[group]
    return group
