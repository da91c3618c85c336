"""How the time of a recipe is shared out over its parts: a table, and pure functions.

Invariants: no part is given more than it can use, and what one part leaves over goes to those after it.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

from diffgen.errors import UserError

UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}


@dataclass(frozen=True)
class Share:
    """A part's claim on what is left of the budget."""

    weight: float
    most: float | None
    """Seconds it can use at most; None where more time is a better model."""
    reason: str


SHARES = {
    "pictures": Share(2, 300, "each picture is read and written once"),
    "prepare": Share(6, 900, "each picture is cut once"),
    "autoencoder": Share(14, None, "what it loses no later part gives back, but it learns fast"),
    "latents": Share(4, 1800, "each patch is encoded once, in its eight turns"),
    "image": Share(52, None, "the hardest to learn: its curve still falls when all others are flat"),
    "mask": Share(12, None, "label maps are small, and simpler than tissue"),
    "bundle": Share(1, 30, "copies weights"),
    "evaluate": Share(8, 3600, "a fixed number of images, however long was trained"),
    "card": Share(1, 10, "writes one page"),
}
"""In the order of their work."""


def seconds(text: str) -> float:
    """`8m`, `20h`, `1h30m` or `90s` in seconds; `UserError` for anything else."""
    if not re.fullmatch(r"(\d+(\.\d+)?[hms])+", text):
        raise UserError(f"--budget {text}: expected hours, minutes or seconds, such as 20h, 8m or 1h30m")
    return sum(float(number) * UNITS[unit] for number, unit in re.findall(r"([\d.]+)([hms])", text))


def shared_out(left: float, todo: Collection[str]) -> dict[str, float]:
    """Seconds of each part that is still to do, of `left` seconds in all, by their weights.

    A part whose share is more than it can use leaves the rest to the others.
    """
    given: dict[str, float] = {}
    uncapped = [part for part in SHARES if part in todo]
    while uncapped:
        total = sum(SHARES[part].weight for part in uncapped)
        mine = {part: max(0.0, left) * (SHARES[part].weight / total) for part in uncapped}
        full = {
            part: most for part in uncapped if (most := SHARES[part].most) is not None and mine[part] > most
        }
        if not full:
            return given | mine
        given |= full
        left -= sum(full.values())
        uncapped = [part for part in uncapped if part not in full]
    return given
