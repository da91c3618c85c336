"""The verdict on privacy: what was looked for, what was found, and what cannot be seen, in that order.

Invariants: copies that were found are poor whatever else is known; no verdict is better than unknown without
held-out images that the generator never saw, nor good where features could not have told or where not all
was looked at.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from diffgen.evaluation.bootstrap import Estimate
from diffgen.evaluation.copies import CHANCE, SAME, Copies
from diffgen.evaluation.memorization import Memorization
from diffgen.evaluation.page import Level, Verdict
from diffgen.evaluation.patterns import SIDE
from diffgen.evaluation.sections.cells import percent

C_T_POOR = -3.0
"""C_T from which regions are called too near if its interval is below 0 too: 95 % intervals of honest regions
are below 0 in one of forty cases."""
FEW = 0.05
"""Share of held-out regions that may be training regions; they are left out, more spoil the comparison."""
FEW_SHOWN = 0.02
"""Share of synthetic regions that may show held-out tissue: neighbouring fields of one slide do."""
CRIMES = "exact, cut, shifted, turned, mirrored, enlarged, in other stain, blurred or coded again"
UNSEEN = (
    "Not seen: copies of less than a quarter of a region, under heavy noise or drawn anew, and what is "
    "copied of a patient but not of a region's pixels; this is no proof of anonymity"
)


@dataclass(frozen=True)
class Evidence:
    """What the verdict is made of."""

    memory: Memorization
    copies: Copies | None
    exact: int
    """Synthetic regions with the very pixels of a training region."""
    membership: Estimate | None
    training: int
    """Regions that were searched."""
    synthetic: int
    left_out: str
    """What was not looked at, in words; "" where nothing was left out."""
    leaked: int
    """Held-out regions that are training regions."""
    held_out: int

    @property
    def spoiled(self) -> bool:
        """Whether so many held-out regions are training regions that nothing can be compared with them."""
        return self.leaked > FEW * self.held_out


def leaked_words(inside: int, of: int) -> str:
    """That so many held-out regions are training regions."""
    return f"the held-out images are training images: {inside} of {of}"


def verdict(of: Evidence) -> Verdict:
    """Poor where copies were found; else unknown where held-out images are missing, or training images.

    Else fair where regions are too near, or where features could not tell if they were.
    """
    c_t = of.memory.data_copying
    number = f"authenticity {of.memory.authenticity.value:.2f}"
    if c_t is not None:
        number += f", C_T {c_t.c_t.value:.1f}".replace("-", "−")
    poor, fair, unknown = list(_poor(of)), list(_fair(of)), list(_unknown(of))
    level: Level = "poor" if poor else "unknown" if unknown else "fair" if fair else "good"
    found = [*poor, *fair] or [
        f"no sign of copies{_at_most(of)}, not nearer to training regions than held-out ones"
    ]
    if unknown and not poor and not fair:
        found = [f"no sign of copies{_at_most(of)}"]
    unseen = [*unknown, *([of.left_out] if of.left_out else [])]
    parts = [_looked_for(of), _sentence(found), *([_sentence(unseen)] if unseen else []), f"{UNSEEN}."]
    return Verdict(level, number, " ".join(parts))


def _looked_for(of: Evidence) -> str:
    what = CRIMES if of.copies is not None else f"exact, no others as regions are under {SIDE} px"
    return (
        f"Looked for: copies ({what}) of {of.training:,} training regions in {of.synthetic:,} synthetic ones."
    )


def _at_most(of: Evidence) -> str:
    return "" if of.copies is None else f" (with 95 % certainty at most {percent(of.copies.same.high)} are)"


def _poor(of: Evidence) -> Iterator[str]:
    copies, c_t = of.copies, of.memory.data_copying
    if of.exact:
        yield f"{of.exact} have the very pixels of a training region"
    if copies is not None and copies.certain:
        yield f"{_number(copies)} are the same as a training region to the eye or show its tissue"
    if copies is not None and (shown := _of_held_out(copies)) > FEW_SHOWN:
        yield (
            f"{percent(shown)} are copies of held-out regions, which the generator was not to see: it "
            "saw them"
        )
    if c_t is not None and c_t.c_t.high < 0 and c_t.c_t.value < C_T_POOR and not of.spoiled:
        yield "synthetic regions are nearer to training regions than held-out ones (C_T < 0)"


def _fair(of: Evidence) -> Iterator[str]:
    copies, memory = of.copies, of.memory
    null, c_t = memory.authenticity_held_out, memory.data_copying
    if copies is not None and copies.same.value and not copies.certain and not of.exact:
        yield (
            f"{_number(copies)} are like a training region (NCC > {SAME}), as up to "
            f"{percent(CHANCE, 0)} are by chance: look at the pairs"
        )
    if copies is not None and 0 < (shown := _of_held_out(copies)) <= FEW_SHOWN:
        yield f"{percent(shown)} show the tissue of a held-out region: look at the pairs"
    if of.left_out:
        yield "not all was looked at"
    if of.leaked > 0 and not of.spoiled:
        yield f"{leaked_words(of.leaked, of.held_out)}, which were left out"
    if null is None or of.spoiled:
        return
    if c_t is not None and c_t.c_t.high < 0 and c_t.c_t.value >= C_T_POOR:
        yield "synthetic regions are a little nearer to training regions than held-out ones (C_T < 0)"
    if memory.authenticity.high < null.low:
        yield f"authenticity is below that of held-out regions, {null.value:.2f}"
    if memory.authenticity.low > null.high or (c_t is not None and c_t.c_t.low > 0):
        yield (
            "features cannot tell: synthetic regions are so unlike real ones that copies would not be near "
            f"(authenticity of held-out regions is {null.value:.2f})"
        )
    if of.membership is not None and of.membership.low > 0.5:
        auc = f"AUC {of.membership.value:.2f}"
        yield f"training regions are nearer to synthetic ones than held-out ones are ({auc})"
    if of.memory.duplicates.more:
        share = percent(of.memory.duplicates.share.value)
        yield f"{share} are nearer to one another than 99 % of real ones"


def _unknown(of: Evidence) -> Iterator[str]:
    if of.memory.authenticity_held_out is None:
        yield "without held-out real images it cannot be said what is near"
        return
    if of.spoiled:
        yield leaked_words(of.leaked, of.held_out)
    if of.memory.data_copying is None:
        yield "not measured: C_T (too few samples)"
    if of.copies is None:
        yield f"not measured: copies by pixels (regions under {SIDE} px)"


def _number(copies: Copies) -> str:
    same = copies.synthetic.same
    return f"{int(same.sum())} of {len(same):,} ({percent(copies.same.value, 2)})"


def _of_held_out(copies: Copies) -> float:
    return 0.0 if copies.of_held_out is None else float(copies.of_held_out.tissue.mean())


def _sentence(parts: list[str]) -> str:
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."
