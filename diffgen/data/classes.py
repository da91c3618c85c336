"""What the labels of a data set mean, and where a source gets them from.

Names come from `prepare.classes` or from a `labels.json` with the sources. A region's label map comes from
the source's mask or, with `labels: stain`, from its stains: `Classes.read` is the one place that knows which.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffgen.config import Settings
from diffgen.data.slides import Slide, load_mask
from diffgen.data.sources import Source
from diffgen.data.stain import STAIN_CLASSES, STAIN_COLOURS, StainModel
from diffgen.errors import UserError, counted
from diffgen.labels import MAX_CLASSES, LabelMap, Labels, default_colours


@dataclass(frozen=True)
class Classes:
    """The classes of the data set: their names by id, and which ids in masks and stains mean what."""

    labels: Labels = field(default_factory=partial(Labels, ("unknown",)))
    named: frozenset[int] = frozenset()
    """Ids in masks that have a name."""
    values: Mapping[int, int] = field(default_factory=dict)
    """Pixel value in a mask file → class id, where they differ."""
    stain_ids: tuple[int, ...] = ()
    """Class id of each of `STAIN_CLASSES`."""
    stain: StainModel | None = None

    @cached_property
    def table(self) -> NDArray[np.uint8]:
        """(65536,) class id of each pixel value of a mask; 0 where it has no name."""
        ids = (self.values.get(value, value) for value in range(65536))
        return np.array([i if i in self.named else 0 for i in ids], np.uint8)

    def unnamed(self, mask_values: Sequence[int]) -> list[int]:
        """Ids among the values of a mask that have no name."""
        return sorted({self.values.get(value, value) for value in mask_values} - self.named - {0})

    def labelled(self, source: Source) -> bool:
        """Whether a source gets label maps."""
        return bool(source.mask or self.stain)

    def read(
        self, source: Source, slide: Slide, x: int, y: int, width: int, height: int, um: float
    ) -> LabelMap | None:
        """Class ids (height, width) of the region at (x, y), all in pixels of `um` µm; None: no labels.

        Raises `LeftOut` if they cannot be read.
        """
        if source.mask:
            return self.table[slide.read_mask(load_mask(source.mask), x, y, width, height, um)]
        if self.stain:
            return np.asarray(self.stain_ids, np.uint8)[self.stain.label(slide, x, y, width, height, um)]
        return None


def decide_classes(
    sources: Sequence[Source], settings: Settings, notes: list[str]
) -> tuple[Classes, list[Source]]:
    """Classes, and the sources with the masks that will be used; `notes` are for the end of the run.

    With `labels: stain` the classes of the stains follow those of the masks. Raises `UserError` where there
    are masks and no names, and where names contradict each other.
    """
    kind = settings.prepare.labels
    masked = sum(source.mask is not None for source in sources)
    given = None if kind == "none" else _given(sources, settings)
    if given is None and masked and kind in {"masks", "maps"}:
        what = counted(masked, "label map") if kind == "maps" else f"{counted(masked, 'source')} with a mask"
        raise UserError(
            f"{what}, but no class has a name: "
            "say --set 'prepare.classes={1: nuclei}', or put a labels.json beside them"
        )
    if given is None and masked:
        why = "labels is 'none'" if kind == "none" else "no class has a name (prepare.classes)"
        notes.append(f"masks of {counted(masked, 'file')} are not used: {why}")
    if not masked and kind in {"masks", "maps"}:
        notes.append("no source has a mask: nothing is labelled (--labels stain makes weak labels)")
    used = list(sources) if given else [replace(s, mask=None) if s.mask else s for s in sources]
    if kind == "stain":
        return _with_stains(given if given and masked else Classes()), used
    return given or Classes(), used


def _given(sources: Sequence[Source], settings: Settings) -> Classes | None:
    names, values = settings.prepare.classes, settings.prepare.mask_values
    if names:
        if min(names) < 0 or max(names) >= MAX_CLASSES or names.get(0, "unknown") != "unknown":
            raise UserError(f"prepare.classes {names}: ids run from 1 to {MAX_CLASSES - 1}; 0 is 'unknown'")
        listed = ["unknown", *(names.get(i, f"unused {i}") for i in range(1, max(names) + 1))]
        return Classes(Labels(tuple(listed)), frozenset(names), values)
    files = sorted(Path(root) / "labels.json" for root in {source.root for source in sources})
    found = [(file, Labels.load(file)) for file in files if file.is_file()]
    for file, labels in found[1:]:
        if labels.classes != found[0][1].classes:
            raise UserError(f"{file}: other classes than in {found[0][0]}")
    if not found:
        return None
    labels = found[0][1]
    return Classes(Labels(labels.classes, colours=labels.colours), frozenset(range(len(labels))), values)


def _with_stains(base: Classes) -> Classes:
    """The classes with those of the stains after them; a name that is there already keeps its id."""
    added = [name for name in STAIN_CLASSES if name not in base.labels.classes]
    classes = (*base.labels.classes, *added)
    colours = (*base.labels.colours, *(STAIN_COLOURS[STAIN_CLASSES.index(name)] for name in added))
    labels = Labels(classes, colours=colours or default_colours(len(classes)))
    return replace(base, labels=labels, stain_ids=tuple(classes.index(name) for name in STAIN_CLASSES))
