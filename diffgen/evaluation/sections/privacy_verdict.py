"""The verdict on privacy: what was found, and what could not be told.

Invariants: copies that were found are poor whatever else is known; no verdict is better than unknown without
held-out images that the generator never saw, nor good where features could not have told.
"""

from collections.abc import Sequence

from diffgen.evaluation.copies import Copies
from diffgen.evaluation.memorization import Memorization
from diffgen.evaluation.page import Verdict
from diffgen.evaluation.patterns import SIDE
from diffgen.evaluation.sections.cells import percent


def leaked_words(inside: int, of: int) -> str:
    """That so many held-out regions are training regions."""
    return f"the held-out images are training images: {inside} of {of}"


def verdict(memory: Memorization, copies: Copies | None, exact: int, leaked: str) -> Verdict:
    """Poor where copies were found; else unknown where held-out images are missing, or training images.

    Else fair where regions are too near, or where features could not tell if they were. `exact` synthetic
    regions have the very pixels of a training region; `leaked` says which held-out regions are training ones.
    """
    null, c_t = memory.authenticity_held_out, memory.data_copying
    number = f"authenticity {memory.authenticity.value:.2f}"
    if c_t is not None:
        number += f", C_T {c_t.c_t.value:.1f}".replace("-", "−")
    poor, fair = _found(memory, copies, exact)
    if poor:
        return Verdict("poor", number, _sentence([*poor, *fair]))
    if null is None:
        said = ["without held-out real images it cannot be said what is near"]
        return Verdict("unknown", number, _sentence([*fair, *said]))
    if leaked:
        return Verdict("unknown", number, _sentence([leaked, *fair]))
    if fair:
        return Verdict("fair", number, _sentence(fair))
    unmeasured = [
        *(["C_T (too few samples)"] if c_t is None else []),
        *([f"copies by pixels (regions under {SIDE} px)"] if copies is None else []),
    ]
    if unmeasured:
        return Verdict("unknown", number, f"No sign of copies, but not measured: {', '.join(unmeasured)}.")
    return Verdict("good", number, "No sign of copies: not nearer to training regions than held-out ones.")


def _found(memory: Memorization, copies: Copies | None, exact: int) -> tuple[list[str], list[str]]:
    """What makes a verdict poor, and what makes it fair."""
    null, c_t = memory.authenticity_held_out, memory.data_copying
    poor, fair = list[str](), list[str]()
    if exact:
        poor.append(f"{exact} have the very pixels of a training region")
    if copies is not None and copies.same.value:
        said = f"{percent(copies.same.value, 2)} are the same as a training region to the eye"
        if copies.certain:
            poor.append(said)
        elif not exact:
            fair.append(f"{said}, which may be chance: look at the pairs")
    if c_t is not None and c_t.c_t.high < 0:
        poor.append("synthetic regions are nearer to training regions than held-out ones (C_T < 0)")
    if null is not None and memory.authenticity.high < null.low:
        fair.append(f"authenticity is below that of held-out regions, {null.value:.2f}")
    if null is not None and c_t is not None and memory.authenticity.low > null.high and c_t.c_t.low > 0:
        fair.append(
            "features cannot tell: synthetic regions are so unlike real ones that copies would not be near "
            f"(authenticity of held-out regions is {null.value:.2f})"
        )
    if memory.duplicates.more:
        share = percent(memory.duplicates.share.value)
        fair.append(f"{share} are nearer to one another than 99 % of real ones")
    return poor, fair


def _sentence(parts: Sequence[str]) -> str:
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."
