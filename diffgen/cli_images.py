"""Commands on the images that `diffgen synthesize` wrote. Heavy imports are late, so that help is quick."""

import sys
from pathlib import Path
from typing import Annotated, Any

from diffgen.cli_options import (
    Config,
    Gpu,
    Inline,
    Overrides,
    Real,
    argument,
    new_console,
    option,
    say_next,
    stoppable,
)


def export(
    shards: Annotated[str, argument("Folder or URL that `diffgen synthesize` wrote.")],
    to: Annotated[str, option("`ome-tiff`, `geojson`, `folder`, `hf` (Hugging Face), `dzi` (Deep Zoom).")],
    out: Annotated[str | None, option("Folder or URL. [default: beside the shards, `out-ome-tiff`]")] = None,
    jpeg: Annotated[int | None, option("JPEG of this quality. [default: without loss]")] = None,
) -> None:
    """Write images and label maps in the form that another tool opens.

    Images that were written as tiles are put together, in flat memory. The same command resumes where
    it was stopped. docs/export.md says who opens what.

    Example: `diffgen export out --to ome-tiff`
    """
    from diffgen.export.export import export as run

    with stoppable("what is written is whole; the same command resumes from there"):
        made = run(shards, to, out, jpeg, new_console())
    new_console().print(f"{to}: {made}")


def evaluate(
    real: Annotated[str, argument("Training images: prepared data, shards, a folder, or a URL.")],
    synthetic: Annotated[str, argument("Shards, a folder or URL; or a bundle, sampled first.")],
    held_out: Annotated[str | None, option("Real images not trained on. [default: test split]")] = None,
    out: Annotated[str | None, option("Folder or URL of the report. [default: report]")] = None,
    backbone: Annotated[str | None, option("Feature network: `dinov2`, `owner/model`, …")] = None,
    paper: Annotated[bool, option("Compare methods, as the paper does.", "--paper")] = False,
    inline: Inline = False,
    gpu: Gpu = None,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Say how good, how diverse, how private and how useful synthetic images are.

    Writes `report.html`, one file that opens offline, `metrics.json`, and a section in the dataset
    card of the images. The same command resumes where it was stopped.

    Example: `diffgen evaluate data out`
    """
    from diffgen.config import load
    from diffgen.defaults import saved
    from diffgen.models.shipped import digests, resolve

    if "://" not in synthetic and not Path(synthetic).exists() and synthetic in digests():
        synthetic = resolve(synthetic)
    under = {} if "://" in synthetic else saved(Path(synthetic))
    under.pop("evaluation", None)  # defaults of the day when a bundle was trained say nothing of today's
    options: dict[str, Any] = {"places.report": out, "evaluation.backbone": backbone, "gpu": gpu}
    settings = load(config, overrides or (), under, options)
    if paper and "baselines" not in settings.evaluation.parts:
        options["evaluation.parts"] = [*settings.evaluation.parts, "baselines"]
        settings = load(config, overrides or (), under, options)
    from diffgen.evaluation.evaluate import evaluate as run

    console, folder = new_console(), settings.places.report
    with stoppable("no report is written; the same command resumes from there"):
        run(real, synthetic, held_out, settings, ["diffgen", *sys.argv[1:]], inline, console)
    console.print(f"report: {folder}/report.html   figures: {folder}/metrics.json")
    say_next(f"open {folder}/report.html in a browser")


def curate(
    out: Annotated[str, argument("Folder or URL that `diffgen synthesize` wrote.")],
    real: Real = None,
    shards: Annotated[
        str | None, option("Also write shards of what is kept there, with doubtful pixels unknown.")
    ] = None,
    maps: Annotated[
        Path | None, option("Also write label maps there, harder ones more often, for `--masks`.")
    ] = None,
    work: Annotated[Path | None, option("Folder for what is computed. [default: OUT-filter-work]")] = None,
    inline: Inline = False,
    gpu: Gpu = None,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Say which synthetic images, and which of their pixels, others should learn from.

    A segmenter that learned from the real images judges each pixel; copies of training images, repeats and
    images unlike real ones are left out. Writes `filter.parquet` (`keep`, `weight`, `reason`, figures) and a
    section of the card; deletes nothing. The same command resumes where it was stopped.

    Example: `diffgen filter out --real data --shards out-filtered`
    """
    from diffgen.config import load
    from diffgen.defaults import real_images

    settings, console = load(config, overrides or (), options={"gpu": gpu}), new_console()
    data = real_images(real, console)
    from diffgen.curation.curate import Wanted, filter_run

    with stoppable("what is computed is kept; the same command resumes from there"):
        found = filter_run(out, data, settings, Wanted(shards, maps), work, inline, console)
    console.print(f"{found.kept} of {found.all} images are kept: {out}/filter.parquet{found.told}")
    say_next(
        f"diffgen evaluate {data} {shards}" if shards else f"diffgen filter {out} --shards {out}-filtered"
    )
