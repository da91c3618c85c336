"""How useful? What networks learn from synthetic images (Section 5.3), and if images follow their masks."""

from diffgen.errors import UserError
from diffgen.evaluation import plots
from diffgen.evaluation.downstream import TRAINING_SETS, DownstreamResults, ResultRow, evaluate_downstream
from diffgen.evaluation.page import Block, Note, Plot, Table, Verdict
from diffgen.evaluation.run import EvaluationRun, SectionResult
from diffgen.evaluation.sections.cells import band, cell, graded
from diffgen.evaluation.sections.labels import check_labelled

TITLE = "How useful?"
GOOD, FAIR = 0.9, 0.6
"""Share of what training on real images reaches, from which on training on synthetic ones is called so."""
LEARNED = 0.6
"""Balanced accuracy (chance: 0.5) from real images, below which a comparison with them says nothing."""
BLIND = (
    "Small networks, trained for few steps: large pretrained ones may gain less from synthetic images.",
    "The test images are held out of the same collection: other laboratories and scanners are not asked.",
    "The deviation is over seeds, not over test images: a small test set shows or hides by chance.",
    "Agreement is judged by a segmenter that errs itself: compare it with that on real images only.",
)


def build(run: EvaluationRun) -> SectionResult:
    """Real, synthetic and both, tested on held-out real images; agreement of images with their masks."""
    sets, settings = run.sets, run.settings.downstream
    check_labelled(sets)
    if sets.held_out is None:
        raise UserError("There are no held-out real images to test on: name some with --held-out")
    if not len(sets.held_out.labelled):
        raise UserError(f"{sets.held_out.images.where} has no label maps")
    if not settings.positive and "segmentation" not in settings.tasks:
        raise UserError(
            "Nothing is asked: classification needs evaluation.downstream.positive, the name of a class"
        )
    every = [sets.training.images, sets.synthetic.images, sets.held_out.images]
    side = min(settings.side, *(images.largest for images in every))
    real, synthetic, test = (images.crops(side).labelled for images in every)
    found = evaluate_downstream(real, synthetic, test, settings, run.cache / "downstream", run.workers)
    agree = found.agreement
    blocks: list[Block] = [
        *(_table(run, found, task) for task in _tasks(found)),
        *_curves(found),
        Table(
            "Do images show what their masks say?",
            ["class", "synthetic", "held-out real"],
            [
                [name, cell(agree["synthetic"].get(name), 3), cell(one, 3)]
                for name, one in agree["real"].items()
            ],
            "Dice of a segmenter that learned from real images with the image's own mask; intervals of 95 % "
            "over sources.",
        ),
    ]
    if settings.positive is None:
        blocks.append(
            Note("Classification is left out: no class is named by evaluation.downstream.positive.")
        )
    return SectionResult(verdict(found), blocks, {"side": side, **found.to_json()})


def verdict(found: DownstreamResults) -> Verdict:
    """By what training on synthetic images reaches of training on all real ones."""
    task = _tasks(found)[-1]
    name = "mean Dice" if task == "segmentation" else "balanced accuracy"
    of = {row.trained_on: row.figures[name] for row in found.rows if row.task == task and not row.real_images}
    real, synthetic, both = (of[arm] for arm in TRAINING_SETS)
    if task == "classification" and real.mean < LEARNED:
        return Verdict(
            "unknown",
            f"{name} {real.mean:.2f} from real images",
            "The networks hardly learned from real images: more evaluation.downstream.steps, or another "
            "task.",
        )
    share, gain = synthetic.mean / real.mean if real.mean else 0.0, both.mean - real.mean
    said = f"Both together reach {both.mean:.2f}, no better than real images alone"
    if abs(gain) > max(real.deviation, both.deviation):
        said = f"Synthetic images beside real ones cost {-gain:.3f}"
        if gain > 0:
            said = f"Real and synthetic together gain {gain:.3f} on real images alone"
    mine, ceiling = (found.agreement[which]["mean"].value for which in ("synthetic", "real"))
    return Verdict(
        graded(share >= GOOD, share >= FAIR),
        f"{name} {synthetic.mean:.2f} from synthetic images, {real.mean:.2f} from real ones",
        f"{said}. Images agree with their own masks to a mean Dice of {mine:.2f} (real ones {ceiling:.2f}). "
        f"Good from {GOOD:.0%} of real on, fair from {FAIR:.0%} on.",
    )


def _tasks(found: DownstreamResults) -> list[str]:
    return list(dict.fromkeys(row.task for row in found.rows))


def _name(row: ResultRow) -> str:
    return row.trained_on if row.real_images is None else f"{row.trained_on}, {row.real_images} real images"


def _table(run: EvaluationRun, found: DownstreamResults, task: str) -> Table:
    rows, settings = [row for row in found.rows if row.task == task], run.settings.downstream
    note = (
        f"Mean ± deviation over {found.seeds} seeds; {settings.steps} steps of {settings.batch} regions for "
        f"all. Regions: {', '.join(f'{count:,} {name}' for name, count in found.regions.items())}."
    )
    if task == "classification":
        note += f" Positive: {settings.positive} on at least {settings.positive_share:.2%} of a region."
    return Table(
        f"{task.capitalize()}, tested on held-out real images",
        ["trained on", *rows[0].figures],
        [[_name(row), *(cell(figure, 3) for figure in row.figures.values())] for row in rows],
        note,
    )


def _curves(found: DownstreamResults) -> list[Block]:
    """Dice against the number of real images, where several were asked for."""
    of = {(row.trained_on, row.real_images): row.figures["mean Dice"] for row in found.rows
          if row.task == "segmentation"}  # fmt: skip
    counts = sorted({count for _, count in of if count})
    if not counts:
        return []
    series: dict[str, plots.Values | plots.Band] = {
        arm: band(of.get((arm, count), of[arm, None]) for count in counts) for arm in TRAINING_SETS
    }
    image = plots.lines(counts, series, "real images to train on", "mean Dice", logx=True)
    return [Plot("Few real images", image, "Bands: one deviation over seeds.")]
