"""How private? Whether synthetic regions are copies of training regions, or of one another."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from diffgen import progress
from diffgen.evaluation import plots
from diffgen.evaluation.bootstrap import as_json
from diffgen.evaluation.copies import SAME, Copies, evaluate_copies, leaked
from diffgen.evaluation.images import RegionSet
from diffgen.evaluation.memorization import Memorization, evaluate_memorization
from diffgen.evaluation.page import Block, Gallery, Note, Plot, Table
from diffgen.evaluation.patterns import Fingerprints, fingerprints, first_of_each, same_pixels
from diffgen.evaluation.run import EvaluationRun, SectionResult
from diffgen.evaluation.sections.cells import cell, pairs
from diffgen.evaluation.sections.privacy_verdict import leaked_words, verdict
from diffgen.evaluation.sets import numbered
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
    held_out = run.sets.held_out
    every, pixels = _regions_and_pixels(run)
    features, sources = [run.features(crops).values for crops in every], numbered(every)
    with run.measuring("looking for copies"):
        memory = evaluate_memorization(
            features[0], features[1], features[2] if held_out else None,
            sources[0], sources[1], sources[2] if held_out else None, count=run.settings.bootstrap,
        )  # fmt: skip
    copies = _copies(run, pixels, sources[1])
    exact = int(same_pixels(pixels[1], pixels[0]).sum())
    inside = (
        [] if held_out is None else leaked(pixels[2], pixels[0], None if copies is None else copies.held_out)
    )
    found_in_training = None if held_out is None else {
        "regions": len(inside),
        "of": len(held_out),
        "images": sorted({held_out.regions[row].image for row in inside}),
    }  # fmt: skip
    said = verdict(memory, copies, exact, leaked_words(len(inside), len(held_out or ())) if inside else "")
    figures = {
        "training_regions": len(every[0]),
        "exact_copies": exact,
        "held_out_in_training": found_in_training,
        "authenticity": as_json(memory.authenticity),
        "authenticity_held_out": as_json(memory.authenticity_held_out),
        "c_t": as_json(memory.data_copying),
        "near_duplicates": as_json({
            key: getattr(memory.duplicates, key) for key in ("share", "expected", "threshold")
        }),
        "copies": copies and as_json({
            key: getattr(copies, key) for key in ("same", "same_held_out", "above", "expected", "threshold")
        } | {"shifted": copies.synthetic.shifted.mean()}),
    }  # fmt: skip
    blocks = [
        *_warnings(held_out, inside),
        *_tables(memory, copies, len(every[0])),
        *_galleries(run, every[0], memory, copies),
    ]
    return SectionResult(said, blocks, figures)


def _tables(memory: Memorization, copies: Copies | None, training: int) -> Iterator[Block]:
    double, c_t, of = memory.duplicates, memory.data_copying, {} if copies is None else vars(copies)
    rows = [
        ["authenticity (A, eq. 13)", cell(memory.authenticity), cell(memory.authenticity_held_out),
         "more: farther from the training set"],
        ["C_T (eq. 14)", cell(memory.c_t, 1, None), "0", "≪ 0: copies; ≫ 0: under-fitted"],
        [f"the same to the eye (NCC > {SAME}, or shifted)", cell(of.get("same"), 4),
         cell(of.get("same_held_out"), 4), "share; by pixels, in 8 flips and turns"],
        ["NCC above the 99 % quantile of held-out ones", cell(of.get("above"), 3),
         cell(of.get("expected"), 3), "share"],
        ["near-duplicates inside of the set", cell(double.share, 3), cell(double.expected, 3),
         "share; nearer to one of another image than 1 % of training regions are"],
    ]  # fmt: skip
    note = f"Against {training:,} different training regions of that size. Intervals of 95 % over sources."
    yield Table("Against the training set", ["", "synthetic", "held-out real", ""], rows, note)
    if c_t is not None:
        cells = [
            [f"{number}", f"{one.held_out:.2f}", f"{one.generated:.2f}", f"{one.z:.1f}".replace("-", "−")]
            for number, one in enumerate(c_t.cells, 1)
        ]
        yield Table("Cells of C_T", ["cell", "held-out", "synthetic", "Z_U"], cells)


def _galleries(
    run: EvaluationRun, training: RegionSet, memory: Memorization, copies: Copies | None
) -> Iterator[Block]:
    synthetic, near, double = run.sets.synthetic, memory.nearest, memory.duplicates
    first = np.argsort(near.distances[:, 0], kind="stable")[:SHOWN]
    said = [f"{near.distances[i, 0]:.2f}, ratio {memory.ratio[i]:.2f}" for i in first]
    yield Gallery(
        "Nearest by features: synthetic, and its training region (Fig. 1b)",
        pairs(synthetic, first, training, near.indices[first, 0], said),
        "The nearest first: distance, and that ÷ distance of the training region to its own nearest one. "
        "A ratio of 1 or less is not authentic.",
    )
    if copies is not None:
        found = copies.synthetic
        first = np.lexsort((-found.ncc, ~found.same))[:SHOWN]
        shifted = found.shifted & (found.ncc <= SAME)
        said = ["shifted" if shifted[i] else f"NCC {found.ncc[i]:.2f}" for i in first]
        null, real = "", {}
        if copies.held_out is not None:
            null = f"Held-out real regions reach an NCC of {copies.threshold:.2f} in 1 % of cases. "
            real = {"real": copies.held_out.ncc}
        yield Gallery(
            "Nearest by pixels, in any flip, turn or shift",
            pairs(synthetic, first, training, found.indices[first], said),
            f"{null}The training region is shown as it is, not turned to match.",
        )
        yield Plot(
            "Likeness to the nearest training region",
            plots.histograms(real | {"synthetic": found.ncc}, "largest |NCC| with a training region"),
            "Real: held-out. Copies would stand at the right end, but for shifted ones.",
        )
    first = np.argsort(double.nearest.distances[:, 0], kind="stable")[:SHOWN]
    said = [f"{double.nearest.distances[i, 0]:.2f}" for i in first]
    yield Gallery(
        "Nearest to one another, of two synthetic images",
        pairs(synthetic, double.rows[first], synthetic, double.nearest.indices[first, 0], said),
        f"Distance of features; 1 % of training regions are nearer than {double.threshold:.2f}.",
    )


def _warnings(held_out: RegionSet | None, inside: Sequence[int]) -> Iterator[Block]:
    if held_out is None:
        yield Note(
            "No held-out real images are known here, so C_T is not measured and authenticity has nothing "
            "beside it: name some with --held-out.",
            warning=True,
        )
    elif inside:
        names = list(dict.fromkeys(held_out.regions[row].image for row in inside))
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        said = f"{leaked_words(len(inside), len(held_out))}: {', '.join(names[:SHOWN])}{more}."
        yield Note(said, warning=True)


def _regions_and_pixels(run: EvaluationRun) -> tuple[list[RegionSet], list[Fingerprints]]:
    """Training regions, each once, synthetic and held-out ones if there are any; and the pixels of each."""
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
    return [every[0].part(once), *every[1:]], [Fingerprints(training.digests[once], patterns), *others]


def _copies(run: EvaluationRun, pixels: Sequence[Fingerprints], sources: Rows) -> Copies | None:
    """By pixels; `None` for regions that are too small for it."""
    training, synthetic, held_out = (*(one.patterns for one in pixels), None)[:3]
    if training is None or synthetic is None:
        return None
    with run.measuring("looking for copies by pixels"):
        return evaluate_copies(synthetic, training, held_out, sources, count=run.settings.bootstrap)
