"""How useful? What networks learn from synthetic images (Section 5.3), and if images follow their masks."""

from diffgen.errors import UserError
from diffgen.evaluation import plots
from diffgen.evaluation.downstream import DownstreamResults, ResultRow, evaluate_downstream
from diffgen.evaluation.labelled_regions import GroupedClasses
from diffgen.evaluation.learnable import of_contexts
from diffgen.evaluation.page import Block, Note, Plot, Table, Verdict
from diffgen.evaluation.run import EvaluationRun, SectionResult
from diffgen.evaluation.sections.cells import band, cell, graded, text
from diffgen.evaluation.sections.labels import check_labelled

TITLE = "How useful?"
GOOD, FAIR = 0.9, 0.6
"""Share of what training on real images reaches, from which on training on synthetic ones is called so."""
LEARNED = 0.6
"""Balanced accuracy (chance: 0.5) from real images, below which a comparison with them says nothing."""
BLIND = (
    "Small networks, trained for few steps: large pretrained ones may gain less from synthetic images.",
    "The test images are held out of the same collection: other laboratories and scanners are not asked.",
    "The generator saw all of the training images, whatever few of them the networks are given, and so do "
    "validation images know what it draws: gains on tissue that no one labelled may be smaller.",
    "Each gain has its own interval of 95 %: of twenty arms that gain nothing one is expected to seem to.",
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
    if settings.groups:
        every = [GroupedClasses(images, settings.groups) for images in every]
    real, synthetic, test = (images.crops(side).labelled for images in every)
    real, test = (of_contexts(crops, settings.contexts) for crops in (real, test))
    cache = run.cache / "downstream"
    found = evaluate_downstream(real, synthetic, test, settings, cache, run.workers, run.tree.filter)
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
    rows = [row for row in found.rows if row.arm.task == task and row.chosen]
    real, *_ = (row.figures[name] for row in rows if row.arm.trained_on == "real")
    if task == "classification" and real.mean < LEARNED:
        return Verdict(
            "unknown",
            f"{name} {real.mean:.2f} from real images",
            "The networks hardly learned from real images: more evaluation.downstream.steps, or another "
            "task.",
        )
    alone = next((row.figures[name] for row in rows if row.arm.trained_on == "synthetic"), None)
    said = [_gained(row, name) for row in rows if row.gains and row.arm.trained_on != "synthetic"]
    mine, ceiling = (found.agreement[which]["mean"].value for which in ("synthetic", "real"))
    said.append(f"Images agree with their own masks to a mean Dice of {mine:.2f} (real ones {ceiling:.2f})")
    if alone is None:
        return Verdict("unknown", f"{name} {real.mean:.2f} from real images", ". ".join([*said, ""]).strip())
    share = alone.mean / real.mean if real.mean else 0.0
    return Verdict(
        graded(share >= GOOD, share >= FAIR),
        f"{name} {alone.mean:.2f} from synthetic images, {real.mean:.2f} from real ones",
        f"{'. '.join(said)}. Good from {GOOD:.0%} of real on, fair from {FAIR:.0%} on.",
    )


def _gained(row: ResultRow, name: str) -> str:
    gain = row.gains[name]
    if gain.low <= 0 <= gain.high:
        return f"{row.arm.name}: no gain shown on real images alone, {text(gain, 3)}"
    return f"{row.arm.name}: a {'gain' if gain.value > 0 else 'loss'} of {text(gain, 3)} on real images alone"


def _tasks(found: DownstreamResults) -> list[str]:
    return list(dict.fromkeys(row.arm.task for row in found.rows))


def _table(run: EvaluationRun, found: DownstreamResults, task: str) -> Table:
    rows, settings = [row for row in found.rows if row.arm.task == task], run.settings.downstream
    first = next(iter(rows[0].figures))
    note = (
        f"Mean ± deviation over {found.seeds} seeds; {settings.steps} steps of {settings.batch} regions for "
        f"all. Regions: {', '.join(f'{count:,} {name}' for name, count in found.regions.items())}. "
        "Gain: on the same real images alone, paired by test source and seed, 95 %."
    )
    if settings.chooses:
        note += " Shares and last steps were chosen on validation images; ✓ marks the share."
    if task == "classification":
        note += f" Positive: {settings.positive} on at least {settings.positive_share:.2%} of a region."
    several = len(settings.shares) > 1
    return Table(
        f"{task.capitalize()}, tested on held-out real images",
        ["trained on", *rows[0].figures, f"gain, {first}"],
        [
            [
                f"{row.arm.name}{' ✓' * (several and row.arm.share is not None and row.chosen)}",
                *(cell(figure, 3) for figure in row.figures.values()),
                text(row.gains[first], 3) if row.gains else "",
            ]
            for row in rows
        ],
        note,
    )


def _curves(found: DownstreamResults) -> list[Block]:
    """Dice against the number of real images, where several were asked for."""
    of = {(row.arm.trained_on, row.arm.filtered, row.arm.real_images): row.figures["mean Dice"]
          for row in found.rows if row.arm.task == "segmentation" and row.chosen}  # fmt: skip
    counts = sorted({count for _, _, count in of if count})
    if not counts:
        return []
    kinds = dict.fromkeys((trained_on, filtered) for trained_on, filtered, _ in of)
    series: dict[str, plots.Values | plots.Band] = {
        f"{trained_on}{', filtered' * filtered}": band(
            of.get((trained_on, filtered, count)) or of[trained_on, filtered, None] for count in counts
        )
        for trained_on, filtered in kinds
    }
    image = plots.lines(counts, series, "real images to train on", "mean Dice", logx=True)
    return [Plot("Few real images", image, "Bands: one deviation over seeds.")]
