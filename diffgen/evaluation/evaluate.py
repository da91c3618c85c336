"""`diffgen evaluate`: sets, sections, report. The report is written at the end, whole or not at all.

Features, networks and images from a bundle are kept in the folder as they come, so the same command resumes
where it was stopped. `report.html` and `metrics.json` of an earlier evaluation go when a new one begins.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console

from diffgen import __version__, config
from diffgen.cluster import on_gpus
from diffgen.errors import UserError, one_line
from diffgen.evaluation import card, page
from diffgen.evaluation.from_bundle import is_bundle, sampled
from diffgen.evaluation.images import RegionSet
from diffgen.evaluation.page import Page, Section, Verdict
from diffgen.evaluation.run import EvaluationRun, SectionResult
from diffgen.evaluation.sections import baselines, downstream, fidelity, labels, large, privacy
from diffgen.evaluation.sections.cells import not_chosen
from diffgen.evaluation.sections.plain import plain
from diffgen.evaluation.sets import make_sets, real_sets
from diffgen.storage import Folder, write_text

SECTIONS: Mapping[str, ModuleType] = {
    "fidelity": fidelity,
    "privacy": privacy,
    "labels": labels,
    "large": large,
    "downstream": downstream,
    "baselines": baselines,
}
"""Each module has a TITLE, what its figures are BLIND to, and `build`."""
DECISIVE = {"fidelity", "privacy"}
"""They come first and read every region: what they refuse (a picture that cannot be read, a feature that is
NaN) ends the evaluation. What the data does not answer of others is "not known", and the rest stands."""
SHOWN = 6
"""Pictures of each kind on the report's first page."""
COLOURS = {"good": "green", "fair": "yellow", "poor": "red", "unknown": "dim"}


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
    place = settings.places.report
    far = "://" in place
    settings = settings.on(on_gpus(settings.gpu, inline or far))  # the driver's machine may have none
    if not far:
        return _evaluate(real, synthetic, held_out, settings, command, Path(place), inline, console)
    # What tasks on other nodes wrote to a folder would stay there: this process does it all.
    console.print(f"report: {place}; measured in this process, as a report behind a URL is")
    with tempfile.TemporaryDirectory() as folder:
        found = _evaluate(real, synthetic, held_out, settings, command, Path(folder), True, console)
        for name in ("report.html", "metrics.json"):
            Folder(place).upload(Path(folder) / name, name)
    return found


def _evaluate(
    real: str,
    synthetic: str,
    held_out: str | None,
    settings: config.Settings,
    command: Sequence[str],
    folder: Path,
    inline: bool,
    console: Console,
) -> dict[str, Verdict]:
    folder.mkdir(parents=True, exist_ok=True)
    bundle = Path(synthetic) if is_bundle(synthetic) else None
    if "baselines" in settings.evaluation.parts and bundle is None:
        raise UserError(f"--paper draws images by several methods and needs a bundle, not {synthetic}")
    # What is wrong with the real images is said before others are sampled.
    opened = real_sets(real, held_out, settings.evaluation, console)
    if bundle is not None:
        synthetic = sampled(bundle, real, folder / "synthetic", settings, inline, console)
    sets = make_sets(opened, synthetic, settings.evaluation, console)
    for name, crops in sets.named.items():
        if crops is not None:
            where = shown(crops.images.where)
            console.print(f"{name.replace('_', ' ')}: {len(crops)} regions of {crops.side} px, {where}")
    for old in ("report.html", "metrics.json"):  # not before: a refused command loses nothing
        (folder / old).unlink(missing_ok=True)
    run = EvaluationRun(sets, settings, bundle, folder, command, inline, console)
    sections, figures = list[Section](), dict[str, Any]()
    for topic in settings.evaluation.parts:
        kind = SECTIONS[topic]
        console.print(f"[bold]{kind.TITLE}[/]")
        try:
            found, blind = kind.build(run), kind.BLIND
        except UserError as error:
            if topic in DECISIVE:
                raise
            said = Verdict("unknown", "–", f"{error}.")
            found, blind = SectionResult(said, (), {"not_measured": str(error)}), ()
        if verdict := found.verdict:
            word = f"[{COLOURS[verdict.level]}]{page.WORDS[verdict.level]}[/]"
            console.print(f"  {word}: {verdict.number}. {verdict.text}")
        sections.append(
            Section(topic, kind.TITLE, verdict, found.blocks, blind, run.how(topic), plain(topic, verdict))
        )
        figures[topic] = {
            "verdict": verdict and vars(verdict),
            "plain": plain(topic, verdict),
            "does_not_detect": list(blind),
            **found.figures,
        }
    _write(run, sections, figures)
    if len(sections) > 1:  # one section made again (`EvaluationRun.how`) leaves the card's
        _put_section(synthetic, run, sections)
    return {section.id: section.verdict for section in sections if section.verdict}


def _write(run: EvaluationRun, sections: Sequence[Section], figures: Mapping[str, Any]) -> None:
    """`metrics.json` and `report.html`."""
    sets, settings = run.sets, run.settings
    left_out = [topic for topic in config.Evaluation().parts if topic not in figures]
    told = {
        "version": __version__,
        "command": list(run.command),
        "sets": {name: crops and _facts(crops) for name, crops in sets.named.items()},
        "settings": settings.model_dump(mode="json"),
        "not_asked": left_out,
        **figures,
    }
    write_text(run.folder / "metrics.json", json.dumps(told, indent=2, allow_nan=False) + "\n")
    scale = f" of {sets.mpp:g} µm" if sets.mpp else ""
    facts = [
        *((name.replace("_", " "), "none known" if crops is None else
           f"{shown(crops.images.where)} ({len(crops):,} regions)") for name, crops in sets.named.items()),
        ("regions", f"{sets.side}×{sets.side} pixels{scale}"),
        ("features", f"{settings.backbone}"),
        ("pictures", str(run.view)),
    ]  # fmt: skip
    notes = [f"diffgen {__version__}. All of it: {run.how_all}"]
    if left_out:
        notes.append(f"Not asked (evaluation.parts): {' '.join(SECTIONS[t].TITLE for t in left_out)}")
    subtitle = f"{shown(sets.synthetic.images.where)} against {shown(sets.training.images.where)}"
    real = sets.held_out or sets.training
    pictures = [
        not_chosen(f"{name}, not chosen", crops, SHOWN, None)
        for name, crops in (("Synthetic", sets.synthetic), ("Real", real))
    ]
    report = Page("Evaluation of synthetic histopathology", subtitle, facts, sections, notes, pictures)
    page.write(report, run.folder / "report.html")


def _facts(crops: RegionSet) -> dict[str, Any]:
    return {
        "where": shown(crops.images.where),
        "sha256": crops.images.digest,
        "regions": len(crops),
        "sources": len({region.source for region in crops.regions}),
        "side": crops.side,
        "mpp": crops.images.mpp,
    }


def shown(where: str) -> str:
    """A place as it is told: from the working folder, if it is below it."""
    here, path = Path.cwd(), Path(where)
    return str(path.relative_to(here)) if "://" not in where and path.is_relative_to(here) else where


def _put_section(synthetic: str, run: EvaluationRun, sections: Sequence[Section]) -> None:
    held_out = run.sets.held_out
    text = card.section(
        {section.title: section.verdict for section in sections if section.verdict},
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
