"""How private? Whether synthetic regions are copies of training regions, or of one another."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from diffgen import progress
from diffgen.evaluation import plots
from diffgen.evaluation.bootstrap import as_json
from diffgen.evaluation.copies import SAME, Copies, evaluate_copies
from diffgen.evaluation.images import RegionSet
from diffgen.evaluation.memorization import Memorization, evaluate_memorization
from diffgen.evaluation.page import Block, Gallery, Note, Plot, Section, Table, Tile
from diffgen.evaluation.patterns import Fingerprints, fingerprints, first_of_each, same_pixels
from diffgen.evaluation.run import EvaluationRun, SectionResult
from diffgen.evaluation.sections.cells import cell, tile
from diffgen.evaluation.sections.privacy_verdict import Leaked, verdict
from diffgen.evaluation.sets import numbered, part
from diffgen.labels import Picture

Rows = NDArray[np.intp]

TITLE = "How private?"
SHOWN = 12
BLIND = (
    "A copy of a part of a training region, or one that is shifted by more than a fifth of its side, or "
    "shifted and enlarged: features see it poorly, pixels hardly.",
    "Few copies among many others hardly move C_T and authenticity, which see tendencies: look at the "
    "galleries, which show the nearest first.",
    "Training data with near-duplicates in it (overlapping crops, glass) hides copies from authenticity; "
    "regions whose very pixels are there twice do not, as they count once.",
    "What is copied of a patient but is not in the pixels of one region, such as a rare order of glands over "
    "a slide, is not looked for. None of this is a proof of anonymity.",
)


def build(run: EvaluationRun) -> SectionResult:
    """Figures against the training set; of held-out real regions what copies nothing gets."""
    sets = run.sets
    synthetic, held_out = sets.synthetic, sets.held_out
    training, found = _pixels(run)
    every = [training, synthetic, *([held_out] if held_out else [])]
    features = [run.features(crops).values for crops in every]
    sources = numbered(every)
    with run.measuring("looking for copies"):
        memory = evaluate_memorization(
            features[0], features[1], features[2] if held_out else None,
            sources[0], sources[1], sources[2] if held_out else None, count=run.settings.bootstrap,
        )  # fmt: skip
    copies = _copies(run, found, sources[1])
    exact = int(same_pixels(found[1], found[0]).sum())
    leaked = _leaked(found, copies)
    how = run.how("privacy")
    blocks = [
        *_warnings(held_out, leaked),
        *_tables(memory, copies, len(training), how),
        *_galleries(run, training, memory, copies, how),
    ]
    return SectionResult(
        Section("privacy", TITLE, verdict(memory, copies, exact, leaked), blocks, BLIND),
        {
            "training_regions": len(training),
            "exact_copies": exact,
            "held_out_in_training": None if held_out is None else {
                "regions": len(leaked.rows),
                "of": len(held_out),
                "images": sorted({held_out.regions[row].image for row in leaked.rows}),
            },
            "authenticity": as_json(memory.authenticity),
            "authenticity_held_out": as_json(memory.authenticity_held_out),
            "c_t": as_json(memory.data_copying),
            "near_duplicates": {
                "share": as_json(memory.duplicates.share),
                "expected": memory.duplicates.expected,
                "threshold": memory.duplicates.threshold,
            },
            "copies": None if copies is None else {
                "same": as_json(copies.same),
                "same_held_out": copies.same_held_out,
                "shifted": float(copies.synthetic.shifted.mean()),
                "above": as_json(copies.above),
                "expected": copies.expected,
                "threshold": copies.threshold,
            },
        },
    )  # fmt: skip


def _tables(memory: Memorization, copies: Copies | None, training: int, how: str) -> list[Block]:
    double, c_t = memory.duplicates, memory.data_copying
    rows = [
        ["authenticity (A, eq. 13)", cell(memory.authenticity), cell(memory.authenticity_held_out),
         "more: farther from the training set"],
        ["C_T (eq. 14)", cell(c_t.c_t if c_t else None, 1, None), "0", "≪ 0: copies; ≫ 0: under-fitted"],
        [f"the same to the eye (NCC > {SAME}, or shifted)", cell(copies.same if copies else None, 4),
         cell(copies.same_held_out if copies else None, 4), "share; by pixels, in 8 flips and turns"],
        ["NCC above the 99 % quantile of held-out ones", cell(copies.above if copies else None, 3),
         cell(copies.expected if copies else None, 3), "share"],
        ["near-duplicates inside of the set", cell(double.share, 3), cell(double.expected, 3),
         "share; nearer to one of another image than 1 % of training regions are"],
    ]  # fmt: skip
    note = f"Against {training:,} different training regions of that size. Intervals of 95 % over sources."
    blocks: list[Block] = [
        Table("Against the training set", ["", "synthetic", "held-out real", ""], rows, note, how)
    ]
    if c_t is not None:
        cells = [
            [f"{number}", f"{one.held_out:.2f}", f"{one.generated:.2f}", f"{one.z:.1f}".replace("-", "−")]
            for number, one in enumerate(c_t.cells, 1)
        ]
        blocks.append(Table("Cells of C_T", ["cell", "held-out", "synthetic", "Z_U"], cells, command=how))
    return blocks


def _galleries(
    run: EvaluationRun, training: RegionSet, memory: Memorization, copies: Copies | None, how: str
) -> list[Block]:
    synthetic = run.sets.synthetic

    def pairs(rows: Rows, partners: Rows, of: RegionSet, said: Sequence[str]) -> list[Tile]:
        return [
            tile(synthetic, row, None, f"{synthetic.regions[row].image} · {words}",
                 tile(of, partner, None, of.regions[partner].source))
            for row, partner, words in zip(rows.tolist(), partners.tolist(), said, strict=True)
        ]  # fmt: skip

    def gallery(title: str, caption: str, shown: list[Tile]) -> Gallery:
        return Gallery(title, shown, caption, how)

    nearest, distances, ratio = memory.nearest.indices[:, 0], memory.nearest.distances[:, 0], memory.ratio
    first = np.argsort(distances, kind="stable")[:SHOWN]
    blocks: list[Block] = [
        gallery(
            "Nearest by features: synthetic, and its training region (Fig. 1b)",
            "The nearest first: distance, and that ÷ distance of the training region to its own nearest one. "
            "A ratio of 1 or less is not authentic.",
            pairs(
                first, nearest[first], training, [f"{distances[i]:.2f}, ratio {ratio[i]:.2f}" for i in first]
            ),
        )
    ]
    if copies is not None:
        found = copies.synthetic
        first = np.lexsort((-found.ncc, ~found.same))[:SHOWN]
        said = [
            "shifted" if found.shifted[i] and found.ncc[i] <= SAME else f"NCC {found.ncc[i]:.2f}"
            for i in first
        ]
        null = "" if copies.threshold is None else (
            f"Held-out real regions reach an NCC of {copies.threshold:.2f} in 1 % of cases. "
        )  # fmt: skip
        real = {} if copies.held_out is None else {"real": copies.held_out.ncc}
        blocks += [
            gallery(
                "Nearest by pixels, in any flip, turn or shift",
                f"{null}The training region is shown as it is, not turned to match.",
                pairs(first, found.indices[first], training, said),
            ),
            Plot(
                "Likeness to the nearest training region",
                plots.histograms(real | {"synthetic": found.ncc}, "largest |NCC| with a training region"),
                "Real: held-out. Copies would stand at the right end, but for shifted ones.",
                how,
            ),
        ]
    double = memory.duplicates
    order = np.argsort(double.nearest.distances[:, 0], kind="stable")[:SHOWN]
    said = [f"{double.nearest.distances[i, 0]:.2f}" for i in order]
    blocks.append(
        gallery(
            "Nearest to one another, of two synthetic images",
            f"Distance of features; 1 % of training regions are nearer than {double.threshold:.2f}.",
            pairs(double.rows[order], double.nearest.indices[order, 0], synthetic, said),
        )
    )
    return blocks


def _warnings(held_out: RegionSet | None, leaked: Leaked) -> list[Block]:
    if held_out is None:
        missing = (
            "No held-out real images are known here, so C_T is not measured and authenticity has nothing "
            "beside it: name some with --held-out."
        )
        return [Note(missing, warning=True)]
    if not leaked.rows:
        return []
    names = list(dict.fromkeys(held_out.regions[row].image for row in leaked.rows))
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return [Note(f"{leaked}: {', '.join(names[:SHOWN])}{more}.", warning=True)]


def _pixels(run: EvaluationRun) -> tuple[RegionSet, list[Fingerprints]]:
    """The training regions, each once, and the pixels of them, of the synthetic and of held-out regions."""
    sets = run.sets
    every = [sets.training, sets.synthetic, *([sets.held_out] if sets.held_out else [])]
    with progress.bar(run.console) as bar:
        row = bar.add_task("pixels", total=sum(map(len, every)), figures="regions")

        def pictures(crops: RegionSet) -> Iterator[Picture]:
            for picture in crops.pictures():
                yield run.view(picture)
                bar.advance(row)

        training, *others = [fingerprints(pictures(crops)) for crops in every]
    once = first_of_each(training.digests)
    patterns = None if training.patterns is None else training.patterns[once]
    return part(sets.training, once), [Fingerprints(training.digests[once], patterns), *others]


def _copies(run: EvaluationRun, found: Sequence[Fingerprints], sources: Rows) -> Copies | None:
    """By pixels; `None` for regions that are too small for it."""
    training, synthetic, held_out = (*(one.patterns for one in found), None)[:3]
    if training is None or synthetic is None:
        return None
    with run.measuring("looking for copies by pixels"):
        return evaluate_copies(synthetic, training, held_out, sources, count=run.settings.bootstrap)


def _leaked(found: Sequence[Fingerprints], copies: Copies | None) -> Leaked:
    """Held-out regions that are training regions."""
    if len(found) < 3:
        return Leaked((), 0)
    inside = same_pixels(found[2], found[0])
    if copies is not None and copies.held_out is not None and (inside.any() or copies.held_out.certain()):
        inside = inside | copies.held_out.same
    return Leaked(tuple(np.flatnonzero(inside).tolist()), len(inside))
