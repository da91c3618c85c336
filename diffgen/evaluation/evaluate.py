"""`diffgen evaluate`: sets, sections, report. The report is written at the end, whole or not at all.

Features, networks and images from a bundle are kept in the folder as they come, so the same command resumes
where it was stopped. `report.html` and `metrics.json` of an earlier evaluation go when a new one begins.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from diffgen import __version__, config
from diffgen.cluster import on_gpus
from diffgen.errors import UserError, one_line
from diffgen.evaluation import card, page
from diffgen.evaluation.from_bundle import is_bundle, sampled
from diffgen.evaluation.page import Page, Section, Verdict
from diffgen.evaluation.run import EvaluationRun, SectionResult
from diffgen.evaluation.sections import baselines, downstream, fidelity, labels, large, privacy
from diffgen.evaluation.sets import Sets, make_sets, real_sets
from diffgen.files import write_text

SECTIONS: Mapping[str, Callable[[EvaluationRun], SectionResult]] = {
    "fidelity": fidelity.build,
    "privacy": privacy.build,
    "labels": labels.build,
    "large": large.build,
    "downstream": downstream.build,
}
TITLES = {
    "fidelity": fidelity.TITLE,
    "privacy": privacy.TITLE,
    "labels": labels.TITLE,
    "large": large.TITLE,
    "downstream": downstream.TITLE,
    "baselines": baselines.TITLE,
}


def evaluate(
    real: str,
    synthetic: str,
    held_out: str | None,
    settings: config.Settings,
    command: Sequence[str],
    inline: bool,
    console: Console,
) -> dict[str, Verdict]:
    """Measure, and write `report.html` and `metrics.json`; the verdict of each section.

    `synthetic` may be a bundle, which is sampled from first. Raises `UserError` for sets that cannot be
    compared, before any work where that can be told.
    """
    settings = settings.on(on_gpus(settings.gpu, inline))
    folder = Path(settings.places.report)
    folder.mkdir(parents=True, exist_ok=True)
    bundle = synthetic if is_bundle(synthetic) else None
    if "baselines" in settings.evaluation.parts and bundle is None:
        raise UserError(f"--paper draws images by several methods and needs a bundle, not {synthetic}")
    # What is wrong with the real images is said before others are sampled.
    opened = real_sets(real, held_out, settings.evaluation, console)
    if bundle is not None:
        synthetic = sampled(Path(bundle), real, folder / "synthetic", settings, inline, console)
    sets = make_sets(opened, synthetic, settings.evaluation, console)
    tell(sets, console)
    for old in ("report.html", "metrics.json"):  # not before: a refused command loses nothing
        (folder / old).unlink(missing_ok=True)
    run = EvaluationRun(sets, settings.evaluation, folder, command, inline, console)
    results: dict[str, SectionResult] = {}
    for topic in settings.evaluation.parts:
        console.print(f"[bold]{TITLES[topic]}[/]")
        results[topic] = _result(topic, run, bundle, settings)
        show(results[topic].section, console)
    figures = {
        "version": __version__,
        "command": list(command),
        "sets": _facts(sets),
        "settings": settings.evaluation.model_dump(mode="json"),
        "not_asked": _left_out(results),
        **{topic: _with_verdict(result) for topic, result in results.items()},
    }
    write_text(folder / "metrics.json", json.dumps(figures, indent=2, allow_nan=False) + "\n")
    page.write(_page(run, results), folder / "report.html")
    verdicts = {topic: result.section.verdict for topic, result in results.items() if result.section.verdict}
    if len(results) > 1:  # one figure made again (`Study.how`) leaves the section of all
        _put_section(synthetic, run, verdicts)
    return verdicts


def _result(topic: str, run: EvaluationRun, bundle: str | None, settings: config.Settings) -> SectionResult:
    """One section. What the data cannot answer is "not known"; the other sections stand.

    Fidelity and privacy come first and read every region: what they refuse (a picture that cannot be read, a
    feature that is NaN) ends the evaluation.
    """
    try:
        if topic == "baselines":
            return baselines.build(run, Path(str(bundle)), settings)
        return SECTIONS[topic](run)
    except UserError as error:
        if topic in {"fidelity", "privacy"}:
            raise
        verdict = Verdict("unknown", "–", f"{error}.")
        return SectionResult(Section(topic, TITLES[topic], verdict), {"not_measured": str(error)})


def tell(sets: Sets, console: Console) -> None:
    """What is compared, before any work."""
    for name, crops in (
        ("training", sets.training),
        ("held out", sets.held_out),
        ("synthetic", sets.synthetic),
    ):
        if crops is not None:
            console.print(f"{name}: {len(crops)} regions of {crops.side} px, {shown(crops.images.where)}")


def shown(where: str) -> str:
    """A place as it is told: from the working folder, if it is below it."""
    here, path = Path.cwd(), Path(where)
    return str(path.relative_to(here)) if "://" not in where and path.is_relative_to(here) else where


def show(section: Section, console: Console) -> None:
    verdict = section.verdict
    if verdict is not None:
        colour = {"good": "green", "fair": "yellow", "poor": "red", "unknown": "dim"}[verdict.level]
        console.print(f"  [{colour}]{page.WORDS[verdict.level]}[/]: {verdict.number}. {verdict.text}")


def _left_out(results: Mapping[str, SectionResult]) -> list[str]:
    """Sections that are usually there and were left out."""
    return [topic for topic in config.Evaluation().parts if topic not in results]


def _with_verdict(result: SectionResult) -> dict[str, Any]:
    verdict = result.section.verdict
    said = None if verdict is None else vars(verdict)
    return {"verdict": said, "does_not_detect": list(result.section.blind), **result.figures}


def _put_section(synthetic: str, run: EvaluationRun, verdicts: Mapping[str, Verdict]) -> None:
    held_out = run.sets.held_out
    text = card.section(
        {TITLES[topic]: verdict for topic, verdict in verdicts.items()},
        len(run.sets.training),
        None if held_out is None else len(held_out),
        run.how_all,
    )
    try:
        found = card.put(synthetic, text)
    except OSError as error:
        run.console.print(f"[yellow]dataset card[/]: not written, {one_line(error)}")
        return
    if found:
        run.console.print(f"dataset card: a section in {synthetic.rstrip('/')}/README.md")


def _facts(sets: Sets) -> dict[str, Any]:
    every = {"training": sets.training, "held_out": sets.held_out, "synthetic": sets.synthetic}
    return {
        name: None if crops is None else {
            "where": shown(crops.images.where),
            "sha256": crops.images.digest,
            "regions": len(crops),
            "sources": len({region.source for region in crops.regions}),
            "side": crops.side,
            "mpp": crops.images.mpp,
        }
        for name, crops in every.items()
    }  # fmt: skip


def _page(run: EvaluationRun, results: Mapping[str, SectionResult]) -> Page:
    sets, settings = run.sets, run.settings
    scale = f" of {sets.mpp:g} µm" if sets.mpp else ""
    facts = [
        ("training", f"{shown(sets.training.images.where)} ({len(sets.training):,} regions)"),
        ("held out", "none known" if sets.held_out is None else
         f"{shown(sets.held_out.images.where)} ({len(sets.held_out):,} regions)"),
        ("synthetic", f"{shown(sets.synthetic.images.where)} ({len(sets.synthetic):,} regions)"),
        ("regions", f"{sets.side}×{sets.side} pixels{scale}"),
        ("features", f"{settings.backbone}"),
        ("pictures", str(run.view)),
    ]  # fmt: skip
    left_out = [TITLES[topic] for topic in _left_out(results)]
    notes = [f"diffgen {__version__}. All of it: {run.how_all}"]
    if left_out:
        notes.append(f"Not asked (evaluation.parts): {' '.join(left_out)}")
    return Page(
        title="Evaluation of synthetic histopathology",
        subtitle=f"{shown(sets.synthetic.images.where)} against {shown(sets.training.images.where)}",
        facts=facts,
        sections=[result.section for result in results.values()],
        footnotes=notes,
    )
