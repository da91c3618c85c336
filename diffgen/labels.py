"""Class ids, their names and colours, and the contexts of the mask model: `labels.json`.

Id 0 is always `unknown`: pixels nobody annotated, and the null label ∅ of the image model.
"""

import colorsys
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from diffgen.errors import UserError

LabelMap = NDArray[np.uint8]
"""(H, W) class id per pixel."""
Picture = NDArray[np.uint8]
"""(H, W, 3) RGB."""

UNKNOWN = 0
MAX_CLASSES = 256  # a label map is 8-bit


@dataclass(frozen=True)
class Labels:
    """Names of the classes (position = id) and of the contexts, with each context's share in the data."""

    classes: tuple[str, ...]
    contexts: tuple[str, ...] = ("tissue",)
    context_shares: tuple[float, ...] = (1.0,)
    colours: tuple[tuple[int, int, int], ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.classes or self.classes[UNKNOWN] != "unknown":
            raise UserError(f"labels: class 0 must be 'unknown', got {self.classes[:1]}")
        if len(self.classes) > MAX_CLASSES:
            raise UserError(f"labels: {len(self.classes)} classes do not fit 8 bits (at most 256)")
        for what, names in (("class", self.classes), ("context", self.contexts)):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise UserError(f"labels: {what} name {twice[0]!r} is given twice")
        if len(self.contexts) >= MAX_CLASSES:  # on a mask canvas a context is an 8-bit id, 0 the null one
            raise UserError(f"labels: {len(self.contexts)} contexts, at most 255 fit")
        if not self.contexts or len(self.contexts) != len(self.context_shares):
            raise UserError("labels: every context needs a share, and there must be at least one")
        if not self.colours:
            object.__setattr__(self, "colours", default_colours(len(self.classes)))

    def __len__(self) -> int:
        return len(self.classes)

    def context_id(self, name: str) -> int:
        """Id of a context by its name; `UserError` if there is none."""
        if name not in self.contexts:
            raise UserError(f"context {name!r} is unknown; the data has: {', '.join(self.contexts)}")
        return self.contexts.index(name)

    def shares(self, label_map: LabelMap) -> list[float]:
        """Share of each class in a label map, by id; sums to one."""
        counts = np.bincount(label_map.reshape(-1), minlength=len(self))
        return [float(count) / label_map.size for count in counts[: len(self)]]

    def paint(self, label_map: LabelMap) -> Picture:
        """Label map (H, W) → RGB picture (H, W, 3) in the colours of the classes."""
        painted: Picture = np.asarray(self.colours, dtype=np.uint8)[label_map]
        return painted

    def overlay(self, image: NDArray[np.uint8], label_map: LabelMap, alpha: float = 0.35) -> Picture:
        """RGB image (H, W, 3) with its label map laid over it; unknown pixels stay as they are."""
        weight = np.where(label_map[..., None] == UNKNOWN, 0.0, alpha)
        blend: Picture = np.rint(image * (1 - weight) + self.paint(label_map) * weight).astype(np.uint8)
        return blend

    def to_json(self) -> dict[str, Any]:
        classes = [
            {"id": i, "name": name, "colour": "#{:02x}{:02x}{:02x}".format(*self.colours[i])}
            for i, name in enumerate(self.classes)
        ]
        contexts = [
            {"id": i, "name": name, "share": self.context_shares[i]} for i, name in enumerate(self.contexts)
        ]
        return {"classes": classes, "contexts": contexts}

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Self:
        try:
            classes: Sequence[Mapping[str, Any]] = sorted(tree["classes"], key=lambda c: c["id"])
            contexts: Sequence[Mapping[str, Any]] = sorted(tree["contexts"], key=lambda c: c["id"])
            if [c["id"] for c in classes] != list(range(len(classes))):
                raise UserError("labels.json: class ids must run 0, 1, 2, … without a gap")
            hexes = [str(c["colour"]).removeprefix("#") for c in classes]
            return cls(
                classes=tuple(str(c["name"]) for c in classes),
                contexts=tuple(str(c["name"]) for c in contexts),
                context_shares=tuple(float(c["share"]) for c in contexts),
                colours=tuple((int(h[0:2], 16), int(h[2:4], 16), int(h[4:6], 16)) for h in hexes),
            )
        except (KeyError, TypeError) as error:
            raise UserError(f"labels.json: missing or malformed entry {error}") from error

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read `labels.json`; `UserError` names the file if it is absent or malformed."""
        try:
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, json.JSONDecodeError) as error:
            raise UserError(f"{path}: not a readable labels.json ({error})") from error

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(self.to_json(), indent=2) + "\n", encoding="utf-8")


def default_colours(n: int) -> tuple[tuple[int, int, int], ...]:
    """Black for unknown, then hues a golden angle apart, so that neighbouring ids never look alike."""

    def colour(i: int) -> tuple[int, int, int]:
        r, g, b = colorsys.hsv_to_rgb(0.58 + 0.381966 * i, 0.65, 0.95)
        return round(255 * r), round(255 * g), round(255 * b)

    return ((0, 0, 0), *(colour(i) for i in range(n - 1)))


def majority(label_map: LabelMap, factor: int, num_classes: int) -> LabelMap:
    """Label map (H, W) at 1/`factor` of its scale: each block's commonest class (lowest id wins a tie)."""
    height, width = (side // factor * factor for side in label_map.shape)
    blocks = label_map[:height, :width].reshape(height // factor, factor, width // factor, factor)
    counts = np.stack([(blocks == i).sum(axis=(1, 3), dtype=np.int32) for i in range(num_classes)])
    most: LabelMap = counts.argmax(axis=0).astype(np.uint8)
    return most
