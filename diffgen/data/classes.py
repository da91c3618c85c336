"""What the labels of a data set mean, and where a source gets them from.

Names come from `prepare.classes`, from a `labels.json` with the sources, or are those of the outlines. A
region's label map comes from the source's mask, its outlines or, with `labels: stain`, its stains:
`Classes.read` is the one place that knows which.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffgen.config import Settings
from diffgen.data import annotations
from diffgen.data.masks import load_mask, read_mask
from diffgen.data.report import listed
from diffgen.data.slides import Slide
from diffgen.data.sources import Source
from diffgen.data.stain import STAIN_CLASSES, STAIN_COLOURS, StainModel
from diffgen.errors import UserError, counted
from diffgen.labels import MAX_CLASSES, LabelMap, Labels, default_colours

IGNORED = "*"
"""What names of classes end in that QuPath leaves out of its own measurements ("Ignore*", "Region*")."""
WHITE = 255
"""What a mask of one class often has where the class is."""


@dataclass(frozen=True)
class Classes:
    """The classes of the data set by id, and which values of masks, outlines and stains mean what."""

    labels: Labels = field(default_factory=partial(Labels, ("unknown",)))
    named: frozenset[int] = frozenset()
    """Ids in masks that have a name."""
    values: Mapping[int, int] = field(default_factory=dict)
    """Pixel value in a mask file → class id, where they differ."""
    colours: Mapping[str, int] = field(default_factory=dict)
    """Colour in a mask file → pixel value."""
    rest: int = 0
    """Class id of what is not annotated."""
    unknown: frozenset[str] = frozenset()
    """Names of outlines, without case, whose pixels are unknown, whatever lies below them."""
    instances: int | None = None
    """Class id of all objects in masks that number them."""
    stain_ids: tuple[int, ...] = ()
    """Class id of each of `STAIN_CLASSES`."""
    stain: StainModel | None = None

    @cached_property
    def table(self) -> NDArray[np.uint8]:
        """(65536,) class id of each pixel value of a mask; 0 where it has no name."""
        if self.instances is not None:
            table = np.full(65536, self.instances, np.uint8)
        else:
            ids = (self.values.get(value, value) for value in range(65536))
            table = np.array([i if i in self.named else 0 for i in ids], np.uint8)
        if 0 not in self.values:
            table[0] = self.rest
        return table

    @cached_property
    def by_name(self) -> dict[str, int]:
        """Class id by its name without case; a class wins over a name for what is unknown."""
        named = {self.labels.classes[i].casefold(): i for i in self.named if i}
        return dict.fromkeys(self.unknown, 0) | named

    def unnamed(self, mask_values: Collection[int]) -> list[int]:
        """Ids among the values of a mask that have no name."""
        if self.instances is not None:
            return []
        return sorted({self.values.get(value, value) for value in mask_values} - self.named - {0})

    def labelled(self, source: Source) -> bool:
        """Whether a source gets label maps."""
        return bool(source.mask or source.outlines or (self.stain and source.stain))

    def read(
        self, source: Source, slide: Slide, x: int, y: int, width: int, height: int, um: float
    ) -> LabelMap | None:
        """Class ids (height, width) of the region at (x, y), all in pixels of `um` µm; None: no labels.

        Raises `LeftOut` if they cannot be read.
        """
        box = (x, y, width, height)
        if source.mask:
            return self.table[read_mask(slide, load_mask(source.mask, self.colours), *box, um)]
        if source.outlines:
            drawn = annotations.load(source.outlines, source.name)
            return annotations.rasterise(drawn, self.by_name, slide, box, um, self.rest)
        if self.stain and source.stain:
            found = self.stain.label(slide, source.stain, *box, um)
            return np.asarray(self.stain_ids, np.uint8)[found]
        return None


def decide_classes(
    sources: Sequence[Source], settings: Settings, notes: list[str]
) -> tuple[Classes, list[Source]]:
    """Classes, and the sources with the masks and outlines that are used; `notes` are for the end of the run.

    With `labels: stain` the classes of the stains follow those of the masks. Raises `UserError` where there
    are masks and no names, and where names contradict each other.
    """
    kind = settings.prepare.labels
    sources = [_wanted(source, kind) for source in sources]
    masked, drawn = (sum(one is not None for one in of) for of in _companions(sources))
    given = None if kind == "none" else _given(sources, settings)
    if given is None and masked and kind in {"annotated", "masks", "maps"}:
        what = counted(masked, "label map") if kind == "maps" else f"{counted(masked, 'source')} with a mask"
        raise UserError(
            f"{what}, but no class has a name: say --set 'prepare.classes={{1: nuclei}}', or put a "
            "labels.json beside them (--set prepare.instances=nuclei where each object has its own id)"
        )
    if given is None and masked:
        why = "labels is 'none'" if kind == "none" else "no class has a name (prepare.classes)"
        notes.append(f"masks of {counted(masked, 'file')} are not used: {why}")
        sources = [replace(source, mask=None) for source in sources]
    if kind == "none" and drawn:
        notes.append(f"outlines of {counted(drawn, 'file')} are not used: labels is 'none'")
        sources = [replace(source, outlines=None) for source in sources]
    if not masked and not drawn and kind in {"annotated", "masks", "outlines", "maps"}:
        what = {"annotated": "a mask or outlines", "outlines": "outlines"}.get(kind, "a mask")
        notes.append(f"no source has {what}: nothing is labelled (--labels stain makes weak labels)")
    bare = [source.name for source in sources if not source.mask and not source.outlines]
    if kind != "none" and (masked or drawn) and bare:
        notes.append(f"neither a mask nor outlines: {counted(len(bare), 'file')} ({listed(bare)})")
    unknown = frozenset(name.casefold() for name in settings.prepare.unknown)
    classes = replace(given or Classes(), unknown=unknown)
    return (_with_stains(classes if masked or drawn else Classes()) if kind == "stain" else classes), sources


def _wanted(source: Source, kind: str) -> Source:
    """The source without the label maps that are not asked for; of a mask and outlines the mask is used."""
    if kind == "outlines":
        return replace(source, mask=None)
    return replace(source, outlines=None) if kind == "masks" or source.mask else source


def _companions(sources: Iterable[Source]) -> tuple[list[str | None], list[str | None]]:
    pairs = [(source.mask, source.outlines) for source in sources]
    return [mask for mask, _ in pairs], [outlines for _, outlines in pairs]


def named_by_outlines(classes: Classes, names: Iterable[str], settings: Settings) -> Classes:
    """The classes with those of outlines after them, in the order of their names, where none were given."""
    if settings.prepare.classes:
        return classes
    there = {name.casefold() for name in classes.labels.classes} | classes.unknown
    added: dict[str, str] = {}
    for name in sorted(set(names), key=lambda name: (name.casefold(), name)):
        if name.casefold() not in there and not name.endswith(IGNORED):
            added.setdefault(name.casefold(), name)
    return _with(classes, list(added.values()))


def _given(sources: Sequence[Source], settings: Settings) -> Classes | None:
    prepare = settings.prepare
    made = _of_settings(settings) if prepare.classes else _of_files(sources)
    for name in (prepare.instances, prepare.rest):
        if name is not None and (made is None or name.casefold() not in made.by_name):
            if prepare.classes:
                raise UserError(
                    f"{name!r} is no class: prepare.classes has {', '.join(_names(prepare.classes))}"
                )
            made = _with(made or Classes(), [name])
    if made is None:
        return None
    values = dict(prepare.mask_values)
    if len(made.named - {0}) == 1 and WHITE not in {*values, *made.named}:
        values[WHITE] = max(made.named)
    return replace(
        made,
        values=values,
        colours=prepare.mask_colours,
        rest=made.by_name[prepare.rest.casefold()] if prepare.rest else 0,
        instances=made.by_name[prepare.instances.casefold()] if prepare.instances else None,
    )


def _names(classes: Mapping[int, str]) -> list[str]:
    return [name for _, name in sorted(classes.items())]


def _of_settings(settings: Settings) -> Classes:
    names = settings.prepare.classes
    if min(names) < 0 or max(names) >= MAX_CLASSES or names.get(0, "unknown") != "unknown":
        raise UserError(f"prepare.classes {names}: ids run from 1 to {MAX_CLASSES - 1}; 0 is 'unknown'")
    listed = ["unknown", *(names.get(i, f"unused {i}") for i in range(1, max(names) + 1))]
    return Classes(Labels(tuple(listed)), frozenset(names))


def _of_files(sources: Sequence[Source]) -> Classes | None:
    files = sorted(Path(root) / "labels.json" for root in {source.root for source in sources})
    found = [(file, Labels.load(file)) for file in files if file.is_file()]
    for file, labels in found[1:]:
        if labels.classes != found[0][1].classes:
            raise UserError(f"{file}: other classes than in {found[0][0]}")
    if not found:
        return None
    labels = found[0][1]
    return Classes(Labels(labels.classes, colours=labels.colours), frozenset(range(len(labels))))


def _with(base: Classes, names: Sequence[str], colours: Sequence[tuple[int, int, int]] = ()) -> Classes:
    """The classes with these after them."""
    if not names:
        return base
    classes = (*base.labels.classes, *names)
    own = default_colours(len(classes))[len(base.labels) :]
    labels = Labels(classes, colours=(*base.labels.colours, *(colours or own)))
    return replace(base, labels=labels, named=base.named | frozenset(range(len(base.labels), len(classes))))


def _with_stains(base: Classes) -> Classes:
    """The classes with those of the stains after them; a name that is there already keeps its id."""
    added = [name for name in STAIN_CLASSES if name not in base.labels.classes]
    colours = [STAIN_COLOURS[STAIN_CLASSES.index(name)] for name in added]
    made = _with(base, added, colours)
    ids = tuple(made.labels.classes.index(name) for name in STAIN_CLASSES)
    return replace(made, named=base.named, stain_ids=ids)
