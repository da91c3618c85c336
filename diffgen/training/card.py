"""The model card of a bundle."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffgen import __version__, config
from diffgen.models.bundle import Bundle

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Origin:
    """Where a bundle comes from, as far as its makers know."""

    data: Mapping[str, str] | None
    """Name, what, paper, source, licence, licence_url, changes, scale."""
    commands: Sequence[str]
    seconds: Mapping[str, float]
    """Part of the work → what it took."""
    machine: str
    figures: Mapping[str, Any] | None
    """`metrics.json` of its evaluation."""


def model_card(
    bundle: Bundle, settings: config.Settings, statistics: dict[str, Any], origin: Origin | None = None
) -> str:
    """README.md of a bundle: what is in it, the statistics of the prepared data, where it comes from."""
    facts, labels = bundle.facts, bundle.labels
    shares = statistics["class_shares"]["train"]
    rows = [f"| {i} | {name} | {shares[name]:.1%} |" for i, name in enumerate(labels.classes)]
    return _template("card").format(
        image=_described(bundle.image_unet, settings.training.image, settings.training.max_seconds),
        mask=_described(bundle.mask_unet, settings.training.mask, settings.training.max_seconds),
        autoencoder=type(bundle.codec.model).__name__,
        factor=facts.factor,
        channels=facts.image_channels,
        mpp=facts.mpp,
        pixel_um=facts.mask_pixel_um,
        image_patch=facts.image_patch,
        image_um=facts.image_patch * facts.factor * facts.mpp,
        mask_patch=facts.mask_patch_pixels,
        mask_um=facts.mask_patch_pixels * facts.mask_pixel_um,
        classes="\n".join(rows),
        contexts=", ".join(labels.contexts),
        origin=_origin(statistics, origin),
    )


def _template(name: str) -> str:
    return (TEMPLATES / f"{name}.md").read_text(encoding="utf-8")


def _origin(statistics: dict[str, Any], origin: Origin | None) -> str:
    facts = {"patches": _patches(statistics), "sources": len(statistics["sources"]), "version": __version__}
    if origin is None:
        return _template("origin_unknown").format(**facts)
    return _template("origin_known").format(
        **facts,
        data=_licence(origin.data),
        machine=origin.machine or "a machine not recorded",
        hours=", ".join(f"{part} {_time(took)}" for part, took in origin.seconds.items())
        or "no time recorded",
        commands="\n".join(f"    {command}" for command in origin.commands),
        figures=_figures(origin.figures),
    )


def _licence(data: Mapping[str, str] | None) -> str:
    if data is None:
        return "Its licence is not known to the recipe: whoever shares this bundle states it."
    return (
        f"They are of {data['name']}: {data['what']} ({data['paper']}; {data['source']}), licensed under "
        f"[{data['licence']}]({data['licence_url']}); {data['changes']}. Scale: {data['scale']}."
    )


def _time(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def _figures(metrics: Mapping[str, Any] | None) -> str:
    """Synthetic beside real against real, and the verdict of each question."""
    if metrics is None:
        return "Not measured yet: `diffgen evaluate`."
    rows = ["| figure | synthetic | real against real |", "|---|---|---|"]
    fidelity, large = metrics.get("fidelity", {}), metrics.get("large", {})
    for name, times, synthetic, real in (
        ("precision", 1, fidelity.get("synthetic"), fidelity.get("real_against_real")),
        ("recall", 1, fidelity.get("synthetic"), fidelity.get("real_against_real")),
        ("kid", 1000, fidelity.get("synthetic"), fidelity.get("real_against_real")),
        ("drift", 1, large.get("synthetic"), large.get("real")),
        ("seam", 1, large.get("synthetic"), large.get("real")),
    ):
        cells = [_cell((part or {}).get(name), times) for part in (synthetic, real)]
        rows.append(f"| {name}{' × 1000' if times > 1 else ''} | {' | '.join(cells)} |")
    verdicts = [
        f"- {topic}: {said['number']}. {said['text']}"
        for topic, part in metrics.items()
        if isinstance(part, Mapping) and (said := part.get("verdict"))
    ]
    how = (
        f"By `diffgen evaluate`, features of {fidelity.get('backbone', 'no network')}, held-out real images."
    )
    return "\n".join([how, "", *rows, "", *verdicts])


def _described(unet: Any, part: config.ModelTraining, max_seconds: float | None) -> str:
    if unet is None:
        return "not trained"
    size = sum(p.numel() for p in unet.parameters()) / 1e6
    end = "" if max_seconds is None else f", at most {max_seconds:g} seconds"
    steps = f"{part.steps} steps" if max_seconds is None else f"at most {part.steps} steps"
    return f"{size:.1f} M parameters, {steps} of batch {part.batch}{end}"


def _patches(statistics: dict[str, Any]) -> str:
    return ", ".join(f"{count['train']} {kind} patches" for kind, count in statistics["patches"].items())


def _cell(figure: Sequence[float | None] | None, times: int) -> str:
    """A figure of `metrics.json`, [value, low, high] with an interval of 95 %."""
    if not figure or figure[0] is None:
        return "–"
    value, *interval = [None if number is None else f"{number * times:.3g}" for number in figure]
    return f"{value}" if None in interval else f"{value} ({interval[0]} to {interval[1]})"
