"""How private? Whether synthetic regions are copies of training regions, or of one another."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from diffgen import progress
from diffgen.evaluation import plots
from diffgen.evaluation.bootstrap import Estimate, as_json
from diffgen.evaluation.copies import SAME, Copies, evaluate_copies, leaked, work
from diffgen.evaluation.images import Region, RegionSet
from diffgen.evaluation.memorization import Memorization, Reference, membership
from diffgen.evaluation.page import Block, Gallery, Note, Plot, Table
from diffgen.evaluation.patterns import Fingerprints, fingerprints, first_of_each, partners
from diffgen.evaluation.run import EvaluationRun, SectionResult
from diffgen.evaluation.sections.cells import cell, pairs
from diffgen.evaluation.sections.privacy_pairs import how, named, table
from diffgen.evaluation.sections.privacy_verdict import Evidence, leaked_words, verdict
from diffgen.evaluation.sets import LEAST, Searched, numbered
from diffgen.labels import Picture

Inside = NDArray[np.bool_]

TITLE = "How private?"
SHOWN = 12
BLIND = (
    "A copy of which less than a quarter of a region is left, under noise of 30 grey levels or more, or "
    "hidden in several ways at once (mirrored, turned, enlarged, in other stain and in JPEG of quality 50 or "
    "less): docs/evaluation.md has the share found of each.",
    "Tissue that was drawn anew after a training region, and is not its pixels: no search by pixels sees it.",
    "Few copies among many others hardly move C_T and authenticity, which see tendencies: look at the "
    "galleries, which show the nearest first.",
    "Training data with near-duplicates in it (overlapping crops, glass) hides copies from authenticity; "
    "regions whose very pixels are there twice do not, as they count once.",
    "What is copied of a patient but is not in the pixels of one region, such as a rare order of glands over "
    "a slide, is not looked for. None of this is a proof of anonymity.",
)


def build(run: EvaluationRun) -> SectionResult:
    """Figures against the training set; of held-out real regions what copies nothing gets."""
    sets, searched, held_out = run.sets, run.sets.searched, run.sets.held_out
    pixels = _fingerprints(run)
    once = sets.training.part(first_of_each(pixels.of(sets.training).digests))
    cover = first_of_each(pixels.of(searched.training).digests)
    looked_in, among = searched.training.part(cover), searched.synthetic
    prints = pixels.of(searched.training).part(cover), pixels.of(among)
    held = None if held_out is None else pixels.of(held_out)
    copies = _copies(run, *prints, held, among)
    exact = partners(prints[1], prints[0])
    inside = None if held is None else leaked(held, prints[0], None if copies is None else copies.held_out)
    null = _apart(held_out, inside)
    memory, member = _by_features(run, once, null)
    said = verdict(Evidence(
        memory, copies, int((exact >= 0).sum()), member, len(looked_in), len(among),
        left_out=_left_out(searched),
        leaked=0 if inside is None else int(inside.sum()), held_out=len(held_out or ()),
    ))  # fmt: skip
    found = named(None if copies is None else copies.synthetic, exact, among, looked_in)
    names = [] if held_out is None or inside is None else [
        held_out.regions[row].image for row in np.flatnonzero(inside)
    ]  # fmt: skip
    figures = {
        "training_regions": len(once),
        "searched": {"training": len(looked_in), "of_training": searched.of_training,
                     "synthetic": len(among), "of_synthetic": searched.of_synthetic,
                     "too_small": searched.too_small},
        "exact_copies": int((exact >= 0).sum()),
        "held_out_in_training": None if held_out is None else {
            "regions": len(names), "of": len(held_out), "images": sorted(set(names)),
        },
        "authenticity": as_json(memory.authenticity),
        "authenticity_held_out": as_json(memory.authenticity_held_out),
        "c_t": as_json(memory.data_copying),
        "membership_auc": as_json(member),
        "near_duplicates": as_json({
            key: getattr(memory.duplicates, key) for key in ("share", "expected", "threshold")
        }),
        "copies": copies and as_json({
            key: getattr(copies, key) for key in ("same", "same_held_out", "above", "expected", "threshold")
        } | {
            "tissue": copies.synthetic.tissue.mean(),
            "of_held_out": copies.of_held_out and copies.of_held_out.tissue.mean(),
        }),
        "found": found,
    }  # fmt: skip
    blocks = [
        *_warnings(held_out, names),
        *table(found),
        *_tables(memory, copies, member, len(once)),
        *_galleries(run, once, memory),
        *([] if copies is None else _by_pixels(run, copies, looked_in)),
    ]
    return SectionResult(said, blocks, figures)


def _by_features(
    run: EvaluationRun, training: RegionSet, held_out: RegionSet | None
) -> tuple[Memorization, Estimate | None]:
    """Memorization, and the AUC of membership inference where there are held-out regions."""
    every = [training, run.sets.synthetic, *([held_out] if held_out else [])]
    features, sources = [run.features(crops).values for crops in every], numbered(every)
    with run.measuring("looking for copies"):
        count = run.settings.bootstrap
        real = (features[0], features[2] if held_out else None, sources[0], sources[2] if held_out else None)
        memory = Reference(*real).judged(features[1], sources[1], count=count)
        member = None if held_out is None else membership(
            features[0], features[2], features[1], sources[0], sources[2], count=count
        )  # fmt: skip
    return memory, member


def _apart(held_out: RegionSet | None, inside: Inside | None) -> RegionSet | None:
    """Held-out regions without those that are training regions; all of them where too few would be left."""
    if held_out is None or inside is None or not inside.any():
        return held_out
    apart = held_out.part(~inside)
    return apart if len(apart) >= LEAST and apart.groups.any() else held_out


def _left_out(searched: Searched) -> str:
    """What was not looked at, in words."""
    numbers = (
        (len(searched.synthetic), searched.of_synthetic, "synthetic", "copy_samples"),
        (len(searched.training), searched.of_training, "training", "training_samples"),
    )
    said = [f"{number:,} of {of:,} {name} regions were looked at (evaluation.{setting})"
            for number, of, name, setting in numbers if number < of]  # fmt: skip
    if searched.too_small:
        said.append(
            f"{searched.too_small:,} synthetic images are too small for a region and were not looked at"
        )
    return "; ".join(said)


def _tables(
    memory: Memorization, copies: Copies | None, member: Estimate | None, training: int
) -> Iterator[Block]:
    double, c_t, of = memory.duplicates, memory.data_copying, {} if copies is None else vars(copies)
    rows = [
        ["authenticity (A, eq. 13)", cell(memory.authenticity), cell(memory.authenticity_held_out),
         "more: farther from the training set"],
        ["C_T (eq. 14)", cell(memory.c_t, 1, None), "0", "≪ 0: copies; ≫ 0: under-fitted"],
        [f"the same to the eye (NCC > {SAME}) or of the same tissue", cell(of.get("same"), 4),
         cell(of.get("same_held_out"), 4), "share, exact interval; by pixels, wherever they lie"],
        ["NCC above the 99 % quantile of held-out ones", cell(of.get("above"), 3),
         cell(of.get("expected"), 3), "share"],
        ["membership inference (AUC)", cell(member), "0.5",
         "training images nearer to synthetic ones than held-out images are: 0.5 is private, 1 tells all"],
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


def _galleries(run: EvaluationRun, training: RegionSet, memory: Memorization) -> Iterator[Block]:
    synthetic, near, double = run.sets.synthetic, memory.nearest, memory.duplicates
    first = np.argsort(near.distances[:, 0], kind="stable")[:SHOWN]
    said = [f"{near.distances[i, 0]:.2f}, ratio {memory.ratio[i]:.2f}" for i in first]
    yield Gallery(
        "Nearest by features: synthetic, and its training region (Fig. 1b)",
        pairs(synthetic, first, training, near.indices[first, 0], said),
        "The nearest first: distance, and that ÷ distance of the training region to its own nearest one. "
        "A ratio of 1 or less is not authentic.",
    )
    first = np.argsort(double.nearest.distances[:, 0], kind="stable")[:SHOWN]
    said = [f"{double.nearest.distances[i, 0]:.2f}" for i in first]
    yield Gallery(
        "Nearest to one another, of two synthetic images",
        pairs(synthetic, double.rows[first], synthetic, double.nearest.indices[first, 0], said),
        f"Distance of features; 1 % of training regions are nearer than {double.threshold:.2f}.",
    )


def _by_pixels(run: EvaluationRun, copies: Copies, training: RegionSet) -> Iterator[Block]:
    synthetic, found = run.sets.searched.synthetic, copies.synthetic
    first = np.lexsort((-found.ncc, -found.found.agreeing, ~found.tissue, ~found.same))[:SHOWN]
    said = [
        how(found.found, i, synthetic.side) if found.tissue[i] else f"NCC {found.ncc[i]:.2f}" for i in first
    ]
    null, real = "", {}
    if copies.held_out is not None:
        null = f"Held-out real regions reach an NCC of {copies.threshold:.2f} in 1 % of cases. "
        real = {"real": copies.held_out.ncc}
    yield Gallery(
        "Nearest by pixels, wherever they lie",
        pairs(synthetic, first, training, found.indices[first], said),
        f"{null}The training region is shown as it is, not turned to match.",
    )
    yield Plot(
        "Likeness to the nearest training region",
        plots.histograms(real | {"synthetic": found.ncc}, "largest |NCC| with a training region"),
        "Real: held-out. Copies would stand at the right end, but for those that do not lie in place.",
    )


def _warnings(held_out: RegionSet | None, inside: Sequence[str]) -> Iterator[Block]:
    if held_out is None:
        yield Note(
            "No held-out real images are known here, so C_T is not measured and authenticity has nothing "
            "beside it: name some with --held-out.",
            warning=True,
        )
    elif inside:
        names = list(dict.fromkeys(inside))
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        said = f"{leaked_words(len(inside), len(held_out))}: {', '.join(names[:SHOWN])}{more}."
        yield Note(said, warning=True)


class _Pixels(dict[tuple[int, tuple[Region, ...]], Fingerprints]):
    """Fingerprints by the regions they are of."""

    def of(self, crops: RegionSet) -> Fingerprints:
        return self[_key(crops)]


def _key(crops: RegionSet) -> tuple[int, tuple[Region, ...]]:
    return id(crops.images), crops.regions  # regions of two sets may have one name


def _fingerprints(run: EvaluationRun) -> _Pixels:
    """Pixels of the sets, each read once."""
    sets = run.sets
    asked = [sets.training, sets.searched.training, sets.searched.synthetic, sets.held_out]
    every = {_key(crops): crops for crops in asked if crops is not None}
    with progress.bar(run.console) as bar:
        row = bar.add_task("pixels", total=sum(map(len, every.values())), figures="regions")

        def pictures(crops: RegionSet) -> Iterator[Picture]:
            for picture in crops.pictures():
                yield run.view(picture)
                bar.advance(row)

        return _Pixels((key, fingerprints(pictures(crops))) for key, crops in every.items())


def _copies(
    run: EvaluationRun, training: Fingerprints, synthetic: Fingerprints, held_out: Fingerprints | None,
    among: RegionSet,
) -> Copies | None:  # fmt: skip
    """By pixels; `None` for regions that are too small for it."""
    if training.patterns is None or synthetic.patterns is None:
        return None
    total = work(len(synthetic), len(training), 0 if held_out is None else len(held_out))
    with progress.bar(run.console) as bar:
        row = bar.add_task("copies", total=total, figures="regions, each twice")
        return evaluate_copies(
            synthetic, training, held_out, among.groups, lambda number: bar.advance(row, number)
        )
