"""How good, how diverse? Features of synthetic regions against held-out real ones, and real against real."""

import numpy as np

from diffgen.evaluation import plots
from diffgen.evaluation.bootstrap import Estimate, as_json
from diffgen.evaluation.divergences import KID_SIZE, principal
from diffgen.evaluation.page import Block, Note, Plot, Table, Verdict
from diffgen.evaluation.precision_recall import Fidelity, K, enough_components, evaluate_fidelity, part_of
from diffgen.evaluation.run import EvaluationRun, SectionResult
from diffgen.evaluation.sections.cells import SHARE, RowSpec, level_of, not_chosen, rows_of
from diffgen.evaluation.sets import numbered

TITLE = "How good, how diverse?"
GOOD, FAIR = 0.8, 0.5
"""Part of what real against real gets, of each figure that is judged, from which on a level is given."""
JUDGED = ("precision", "recall", "coverage")
WORSE = {
    "precision": "; part of what is drawn is not like real tissue",
    "recall": "; part of real tissue is not drawn",
    "coverage": "; part of real tissue is not drawn",
}
SHOWN = 18
SUBSETS, FRECHET, SCORE = "KID × 1000, of subsets", "Fréchet distance, without its bias", "Inception Score"
NO_INTERVAL = (
    "A sample at the very radius of a ball lies in it. Without an interval: the Fréchet distance of all "
    "dimensions, as its bias cannot be told from fewer sources than four a dimension; what has ±, the "
    "deviation over subsets (KID) or splits (Inception Score), which is not that of the mean."
)
ROWS: tuple[RowSpec, ...] = (
    ("precision (IP, eq. 11)", lambda f: f.precision, 2, SHARE, 1.0, ""),
    ("recall (IR, eq. 12)", lambda f: f.recall, 2, SHARE, 1.0, ""),
    ("density", lambda f: f.density, 2, None, 1.0, ""),
    ("coverage", lambda f: f.coverage, 2, SHARE, 1.0, ""),
    ("KID × 1000", lambda f: f.kid, 1, None, 1000.0, ""),
    (SUBSETS, lambda f: f.kid_subsets, 1, None, 1000.0, ""),
    (FRECHET, lambda f: f.frechet, 2, None, 1.0, ""),
    ("Fréchet distance (FID with Inception-v3)", lambda f: f.fid, 2, None, 1.0, ""),
    (SCORE, lambda f: f.inception_score, 2, None, 1.0, ""),
)
BLIND = (
    "None of these figures sees a copy: a generator that repeats its training images is perfect by all.",
    "Features are those of one network. What it does not look at (fine chromatin, the order of glands) "
    "counts for nothing; a pathology encoder (evaluation.backbone) looks closer.",
    "Regions are judged one by one: what spans more than a region is not seen here.",
    "Label maps have no part in this: see Labels.",
)


def build(run: EvaluationRun) -> SectionResult:
    """Figures of synthetic and of other real regions against the same real ones."""
    real, synthetic, other = run.sets.compared
    found = [run.features(crops) for crops in (real, synthetic, other)]
    sources, settings = numbered([real, synthetic, other]), run.settings
    components = enough_components(sources)
    with run.measuring("comparing distributions"):
        of_synthetic, of_real = (
            evaluate_fidelity(
                found[0].values, found[i].values, sources[0], sources[i],
                components=components, class_logits=found[i].logits, count=settings.bootstrap,
            )
            for i in (1, 2)
        )  # fmt: skip
    named = {
        FRECHET: f"{FRECHET}, {components} components",
        SCORE: f"{SCORE} (classes of {run.backbone.name})",
    }
    rows = [
        (named.get(row[0], row[0]), *row[1:])
        for row in ROWS
        if row[1](of_synthetic) is not None
        and not (row[0] == SUBSETS and len(real) <= KID_SIZE)  # one subset would be all, without a spread
    ]
    basis = principal(found[0].values.astype(np.float64), 2)
    cloud = plots.scatter2d({"real": found[0].values @ basis, "synthetic": found[1].values @ basis})
    blocks: list[Block] = [
        Table(
            "Synthetic against real, and real against real",
            ["", "synthetic", "real against real"],
            rows_of(rows, of_synthetic, of_real),
            f"{len(real):,} regions of {real.side} px a set, of "
            f"{' and '.join(map(str, of_synthetic.sources))} sources; k = {K}. Intervals of 95 % "
            "over sources of both sets: for KID and the Fréchet distance of the populations, for the others "
            f"of sets of this size. {NO_INTERVAL} Real against real is what a perfect generator would get. "
            f"Pictures: {run.view}; {run.backbone.name}, {run.backbone.filter}.",
        ),
        *([Note(of_synthetic.warning, warning=True)] if of_synthetic.warning else []),
        Plot("Features", cloud, "The two main directions of the real features."),
        not_chosen("Synthetic regions, not chosen", synthetic, SHOWN, run.sets.labels),
        not_chosen("Real regions, not chosen", real, SHOWN, run.sets.labels),
    ]
    figures = {
        "backbone": run.backbone.name,
        "digest": run.backbone.digest,
        "filter": run.backbone.filter,
        "pictures": str(run.view),
        "synthetic": as_json(of_synthetic),
        "real_against_real": as_json(of_real),
    }
    return SectionResult(verdict(of_synthetic, of_real), blocks, figures)


def verdict(synthetic: Fidelity, real: Fidelity) -> Verdict:
    """By precision, recall and coverage as parts of what real against real gets, and by their intervals.

    Precision alone would praise noise that lies in the one wide ball of an outlying real region, and one
    image copied often: coverage sees both, and where it is poor precision is no figure to show.
    """
    parts = {name: part_of(synthetic, real, name) for name in JUDGED}
    level = level_of(parts.values(), GOOD, FAIR)
    worst = min(parts, key=lambda name: parts[name].value)
    empty = not parts["coverage"].value >= FAIR
    shown = ("coverage", "recall") if empty else ("precision", "recall", "coverage")
    possible = ", ".join(f"{name} {getattr(real, name).value:.2f}" for name in shown)
    said = f"Real against real has {possible}"
    if empty and synthetic.precision.value > synthetic.coverage.value:
        said += (
            f"; precision ({synthetic.precision.value:.2f}) says nothing here: the images lie by few of the "
            "real ones, as noise or copies of one image do"
        )
    elif level in ("fair", "poor"):
        said += WORSE[worst]
    if level == "unknown":
        said = (
            f"Too few images to tell: {worst} may be {_percent(parts[worst])} of what real images get, of "
            f"{min(synthetic.sources):,} sources. {said}"
        )
    return Verdict(
        level,
        ", ".join(f"{name} {getattr(synthetic, name).value:.2f}" for name in shown),
        f"{said}. Good where all are surely {GOOD:.0%} of that, fair where they are {FAIR:.0%}.",
    )


def _percent(of: Estimate) -> str:
    return f"{of.low:.0%} to {of.high:.0%}" if np.isfinite(of.high) else f"{of.low:.0%} or more"
