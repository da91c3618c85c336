"""How useful? What networks learn from synthetic images (Section 5.3), and if images follow their masks."""

from diffgen.evaluation import plots
from diffgen.evaluation.agreement import Agreement
from diffgen.evaluation.bootstrap import MeanStd
from diffgen.evaluation.downstream import DownstreamResults, ResultRow
from diffgen.evaluation.downstream_run import evaluate_agreement, evaluate_use
from diffgen.evaluation.images import Images, RegionSet
from diffgen.evaluation.page import Block, Level, Note, Plot, Section, Table, Verdict
from diffgen.evaluation.run import EvaluationRun, SectionResult
from diffgen.evaluation.sections.cells import cell
from diffgen.evaluation.sections.labels import without_labels

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
    sets, settings = run.sets, run.settings
    held_out = sets.held_out
    lacking = without_labels(sets) or (
        "There are no held-out real images to test on: name some with --held-out"
        if held_out is None
        else None if len(held_out.labelled) else f"{held_out.images.where} has no label maps"
    )  # fmt: skip
    if lacking or held_out is None:
        verdict = Verdict("unknown", "–", f"{lacking}.")
        return SectionResult(Section("downstream", TITLE, verdict), {"not_measured": lacking})
    if not settings.downstream.positive and "segmentation" not in settings.downstream.tasks:
        why = "Nothing is asked: classification needs evaluation.downstream.positive, the name of a class"
        return SectionResult(
            Section("downstream", TITLE, Verdict("unknown", "–", f"{why}.")), {"not_measured": why}
        )
    every = [sets.training.images, sets.synthetic.images, held_out.images]
    side = min(settings.downstream.side, *(images.largest for images in every))
    real, synthetic, test = (_labelled(images, side) for images in every)
    where = (real, synthetic, test, settings.downstream, run.cache / "downstream", run.inline)
    how = (settings.threads, settings.gpu, run.console)
    found, agree = evaluate_use(*where, *how), evaluate_agreement(*where, *how)
    command = run.how("downstream")
    blocks = [
        *(_table(run, found, task, command) for task in _tasks(found)),
        *_curves(found, command),
        _agreement(agree, command),
    ]
    if settings.downstream.positive is None:
        blocks.append(
            Note("Classification is left out: no class is named by evaluation.downstream.positive.")
        )
    return SectionResult(
        Section("downstream", TITLE, verdict_of(found, agree), blocks, BLIND),
        {"side": side, **found.to_json(), "agreement": agree.to_json()},
    )


def _labelled(images: Images, side: int) -> RegionSet:
    return RegionSet(images, tuple(images.regions(side))).labelled


def verdict_of(found: DownstreamResults, agree: Agreement) -> Verdict:
    """By what training on synthetic images reaches of training on all real ones."""
    task = _tasks(found)[-1]
    name = "mean Dice" if task == "segmentation" else "balanced accuracy"
    of = {row.trained_on: row.figures[name] for row in found.rows if row.task == task and not row.real_images}
    real, synthetic, both = (of[arm] for arm in ("real", "synthetic", "both"))
    share = synthetic.mean / real.mean if real.mean else 0.0
    level: Level = "good" if share >= GOOD else "fair" if share >= FAIR else "poor"
    if task == "classification" and real.mean < LEARNED:
        why = (
            "The networks hardly learned from real images: more evaluation.downstream.steps, or another task"
        )
        number = f"{name} {real.mean:.2f} from real images"
        return Verdict("unknown", number, f"{why}.")
    gain = both.mean - real.mean
    noise = max(real.deviation, both.deviation)
    said = f"Both together reach {both.mean:.2f}, no better than real images alone"
    if gain > noise:
        said = f"Real and synthetic together gain {gain:.3f} on real images alone"
    elif gain < -noise:
        said = f"Synthetic images beside real ones cost {-gain:.3f}"
    number = f"{name} {synthetic.mean:.2f} from synthetic images, {real.mean:.2f} from real ones"
    mine, ceiling = agree.synthetic["mean"].value, agree.real["mean"].value
    return Verdict(
        level,
        number,
        f"{said}. Images agree with their own masks to a mean Dice of {mine:.2f} (real ones {ceiling:.2f}). "
        f"Good from {GOOD:.0%} of real on, fair from {FAIR:.0%} on.",
    )


def _tasks(found: DownstreamResults) -> list[str]:
    return list(dict.fromkeys(row.task for row in found.rows))


def _name(row: ResultRow) -> str:
    return row.trained_on if row.real_images is None else f"{row.trained_on}, {row.real_images} real images"


def _table(run: EvaluationRun, found: DownstreamResults, task: str, command: str) -> Table:
    rows = [row for row in found.rows if row.task == task]
    names = list(rows[0].figures)
    settings = run.settings.downstream
    what = (
        "" if task == "segmentation" else
        f" Positive: {settings.positive} on at least {settings.positive_share:.2%} of a region."
    )  # fmt: skip
    return Table(
        f"{task.capitalize()}, tested on held-out real images",
        ["trained on", *names],
        [[_name(row), *(cell(row.figures[name], 3) for name in names)] for row in rows],
        note=f"Mean ± deviation over {found.seeds} seeds; {settings.steps} steps of {settings.batch} regions "
        f"for all. Regions: {_regions(found)}.{what}",
        command=command,
    )


def _regions(found: DownstreamResults) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in found.regions.items())


def _curves(found: DownstreamResults, command: str) -> list[Block]:
    """Dice against the number of real images, where several were asked for."""
    rows = [row for row in found.rows if row.task == "segmentation"]
    counts = sorted({row.real_images for row in rows if row.real_images})
    if not counts:
        return []

    def band(arm: str) -> plots.Band:
        of = {row.real_images: row.figures["mean Dice"] for row in rows if row.trained_on == arm}
        spreads: list[MeanStd] = [of.get(count, of[None]) for count in counts]
        return plots.Band(
            [one.mean for one in spreads],
            [one.mean - one.deviation for one in spreads],
            [one.mean + one.deviation for one in spreads],
        )

    series = {arm: band(arm) for arm in ("real", "synthetic", "both")}
    image = plots.lines(counts, series, "real images to train on", "mean Dice", logx=True)
    return [Plot("Few real images", image, "Bands: one deviation over seeds.", command)]


def _agreement(agree: Agreement, command: str) -> Table:
    return Table(
        "Do images show what their masks say?",
        ["class", "synthetic", "held-out real"],
        [[name, cell(agree.synthetic.get(name), 3), cell(real, 3)] for name, real in agree.real.items()],
        note="Dice of a segmenter that learned from real images with the image's own mask; intervals of 95 % "
        "over sources.",
        command=command,
    )
