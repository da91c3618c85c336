"""The command line: one thin function per command. Heavy imports are late, so that help is quick."""

import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from diffgen import places
from diffgen.cli_images import curate, evaluate, export
from diffgen.cli_options import (
    Config,
    Data,
    DryRun,
    Gpu,
    InitFrom,
    Inline,
    Overrides,
    Real,
    Run,
    argument,
    new_console,
    option,
    say_next,
    scales_of,
    stoppable,
)
from diffgen.cli_watch import doctor, say_what_is_wrong, status
from diffgen.errors import CannotStartError, UserError, explained

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    rich_markup_mode="markdown",
    help="""Large, seamless synthetic H&E images **with** their label maps, from a few annotated slides.

Four steps: `diffgen prepare` cuts slides into training shards, `diffgen train` learns a generator
(a *bundle*) from them, `diffgen synthesize` writes WebDataset shards of images and label maps,
`diffgen evaluate` says how good, how private and how useful they are.

Example: `diffgen prepare slide.svs --labels stain -c demo && diffgen train && diffgen synthesize`
""",
)


@app.command()
def prepare(
    sources: Annotated[list[str], argument("Slides, images, folders of them, or URLs.")],
    out: Annotated[str | None, option("Folder or URL for the training shards. [default: data]")] = None,
    labels: Annotated[
        str | None,
        option("`masks`, `outlines`, `stain` (weak labels), `none`, `maps` alone. [default: annotated]"),
    ] = None,
    annotations: Annotated[
        str | None, option("Folder of outlines: QuPath GeoJSON, ASAP, ImageScope, HALO, COCO.")
    ] = None,
    patients: Annotated[str | None, option("CSV of `file`, `patient`, `context`, `split`.")] = None,
    mpp: Annotated[float | None, option("µm per pixel of files that do not say their own.")] = None,
    mpp_override: Annotated[
        list[str] | None,
        option("µm per pixel of files that say it wrong. Repeatable.", metavar="PATTERN=0.25"),
    ] = None,
    dry_run: Annotated[bool, option("Stop at the table of all files.", "--dry-run")] = False,
    inline: Inline = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Cut slides and images into training shards.

    Reads OpenSlide formats, OME-TIFF, TIFF, PNG and JPEG, with the masks (`a_mask.png`, `masks/a.png`, …) or
    outlines (`a.geojson`, …) that lie beside them. First a table of all files and classes; then patches, a
    train/test split, statistics and a contact sheet.

    Example: `diffgen prepare slides/ --patients patients.csv --out data`
    """
    from diffgen.config import load

    options: dict[str, Any] = {"prepare.labels": labels, "prepare.assume_mpp": mpp, "places.data": out}
    options |= {"prepare.annotations": annotations, "prepare.patients": patients}
    options["prepare.mpp_override"] = scales_of(mpp_override) if mpp_override else None
    settings = load(config, overrides or (), options=options)
    from diffgen.data import remote
    from diffgen.data.prepare import prepare as run  # late also of wrong settings
    from diffgen.urls import is_url

    with remote.output(data := settings.places.data) as folder:
        run(sources, folder, settings, new_console(), inline, dry_run, data)
    if dry_run:
        return
    if not is_url(data):
        places.remember("data", Path(data))
    say_next(f"diffgen train --data {data}")


@app.command()
def encode(
    data: Data = None,
    run: Run = None,
    init_from: InitFrom = None,
    inline: Inline = False,
    gpu: Gpu = None,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Encode all training images once, so that training does not have to.

    Goes on where it was stopped. `diffgen train` does the same at its start where
    `autoencoder.latents` is `stored`; here it can be done before, on other machines.

    Example: `diffgen encode --data data --set autoencoder.dihedral=8`
    """
    from diffgen.defaults import run_folder, training_settings

    console = new_console()
    data, settings = training_settings(data, run, config, overrides or (), gpu, console)
    from diffgen.models.shipped import resolve
    from diffgen.training.driver import prepare_latents

    start = resolve(init_from) if init_from else None
    prepare_latents(data, run_folder(settings), settings, console, start, inline)
    more = f" --init-from {init_from}" if init_from else ""
    say_next(f"diffgen train --data {data}{more} --set autoencoder.latents=stored")


@app.command()
def train(
    which: Annotated[str, argument("`both`, `image`, `mask`, or `autoencoder`. [default: both]")] = "both",
    data: Data = None,
    run: Run = None,
    init_from: InitFrom = None,
    inline: Inline = False,
    gpu: Gpu = None,
    dry_run: DryRun = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Train the image and the mask model, and write a bundle.

    Runs on Ray Train with as many workers as the settings say, or inline. A stopped run resumes
    from its last checkpoint when it is started again. Settings begin with those of the data.

    Example: `diffgen train --data data --run lung --set training.workers=4`
    """
    from diffgen.defaults import run_folder, training_settings

    if which not in {"both", "image", "mask", "autoencoder"}:
        raise UserError(f"train {which!r}: expected both, image, mask or autoencoder")
    if which == "autoencoder" and init_from:
        raise UserError("train autoencoder: --init-from is of image and mask models")
    parts: Any = ("mask", "image") if which == "both" else (which,)
    console = new_console()
    data, settings = training_settings(data, run, config, overrides or (), gpu, console)
    if dry_run:
        from diffgen.data import remote
        from diffgen.labels import Labels
        from diffgen.training.forecast import forecast

        forecast(parts, settings, Labels.load(remote.local(data) / "labels.json"), console)
        return
    from diffgen.models.shipped import resolve
    from diffgen.training.driver import launch, launch_autoencoder

    folder = run_folder(settings)
    console.print(f"run: {folder}")
    with stoppable("the same command resumes from the last checkpoint"):
        if which == "autoencoder":
            made = launch_autoencoder(data, folder, settings, console, inline)
            console.print(f"autoencoder: {made}")
            say_next(f"diffgen train --data {data} --set autoencoder.kind=conv")
            return
        start = resolve(init_from) if init_from else None
        made = launch(parts, data, folder, settings, console, start, inline)
    if "://" not in made:
        places.remember("bundle", Path(made))
    console.print(f"bundle: {made}   curves: tensorboard --logdir {folder}/tensorboard")
    say_next(f"diffgen synthesize --bundle {made} --n 10 --size {settings.synthesis.size}")


@app.command()
def synthesize(
    bundle: Annotated[str | None, option("Folder, URL, name. [default: last trained, or `default`]")] = None,
    n: Annotated[int | None, option("Number of images.")] = None,
    size: Annotated[str | None, option("Pixels, `S` or `WxH`.")] = None,
    region: Annotated[str | None, option("Only that part of each image, `X,Y,W,H` in pixels.")] = None,
    out: Annotated[str | None, option("Folder or filesystem URL. [default: out]")] = None,
    seed: Annotated[int | None, option("Seed of all images.")] = None,
    context: Annotated[str | None, option("Context of all images. [default: by share in the data]")] = None,
    masks: Annotated[Path | None, option("Folder of label maps (PNG, TIFF, BMP) to fill.")] = None,
    appearance: Annotated[
        list[Path] | None, option("Picture or folder whose stains to take. Repeatable.")
    ] = None,
    samplers: Annotated[str | None, option("Sampler actors, or `auto`.")] = None,
    emit: Annotated[str | None, option("`images`, or `tiles` of them with their place.")] = None,
    tile: Annotated[int | None, option("Side of a tile in pixels. [default: 512]")] = None,
    inline: Inline = False,
    gpu: Gpu = None,
    dry_run: DryRun = False,
    save_time_map: Annotated[bool, option("Keep time-state maps, and a film.", "--save-time-map")] = False,
    mix_devices: Annotated[bool, option("Resume what another device began.", "--mix-devices")] = False,
    format: Annotated[str | None, option("Also write that: what `diffgen export --to` takes.")] = None,
    filter: Annotated[bool, option("Go on until n are kept by `diffgen filter`.", "--filter")] = False,
    real: Real = None,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Write WebDataset shards of synthetic images with their label maps.

    The same command resumes where it was stopped; a larger --n adds images. Any size from one
    patch up, square or not. Sampling settings begin with those of the bundle.

    Example: `diffgen synthesize --n 10000 --size 2048 --out s3://bucket/tissue`
    """
    from diffgen.config import load
    from diffgen.defaults import bundle_folder, check_size, real_images, saved

    if masks and size:
        raise UserError("--masks gives each image its size; leave --size out")
    if masks and n is None:
        from diffgen import label_maps

        n = max(1, len(label_maps.files(masks)))
    if format:
        from diffgen.export.export import check, export

        check(format)
    console, looks = new_console(), appearance or ()
    folder = bundle_folder(bundle, console)
    under = saved(folder, f"{bundle or folder} is not a bundle: diffgen train")
    under.pop("evaluation", None)  # defaults of the day when a bundle was trained say nothing of today's
    options = {"n": n, "size": size, "seed": seed, "context": context, "samplers": samplers}
    options |= {"region": region, "emit": emit, "tile": tile, "mix_devices": mix_devices or None}
    values: dict[str, Any] = {f"synthesis.{key}": value for key, value in options.items()}
    values |= {"places.out": out, "gpu": gpu}
    settings = load(config, overrides or (), under, values)
    if not masks:
        check_size(folder, settings.synthesis.size)
    data = real_images(real, console) if filter or real else ""
    if (filter and save_time_map) or (real and not filter):
        raise UserError("--real is of --filter, which keeps no time-state maps")
    from diffgen.synthesis import driver

    if dry_run:
        driver.dry_run(folder, settings, masks, console, looks)
        return
    out = settings.places.out
    console.print(f"out: {out}")
    with stoppable(f"whole shards are in {out}; the same command resumes from there"):
        if filter:
            from diffgen.curation.curate import synthesize_kept

            done, out = synthesize_kept(folder, out, data, settings, masks, inline, console, looks)
        else:
            done = driver.synthesize(folder, out, settings, masks, inline, console, save_time_map, looks)
    size_text = "given label maps" if masks else f"{settings.synthesis.size} px"
    size_text += f", region {region}" if region else ""
    console.print(
        f"{done.made} images ({size_text}) in {done.seconds:.0f} s; "
        f"{settings.synthesis.n} images in {done.shards} shard(s): {out if filter else done.out}"
    )
    if done.made:
        driver.summarise(done, console)
    if format:
        with stoppable("all shards are whole; the same command goes on with the export"):
            console.print(f"{format}: {export(out, format, None, None, console)}")
    say_next(f"look at {out}/preview.png, then read {out}/README.md for five lines of loading code")


app.command()(export)
app.command()(evaluate)
app.command("filter")(curate)
app.command()(status)
app.command()(doctor)


def main() -> NoReturn:
    """Entry point: a user's mistake, or a want of the machine, is one line and exit status 2.

    3: all is done, and some images could not be made.
    """
    try:
        app()
    except Exception as error:  # memory, disk and Ray raise many kinds; what is our mistake passes on
        line = explained(error, sys.argv[1:])
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        if isinstance(error, CannotStartError):
            say_what_is_wrong()
        sys.exit(error.status if isinstance(error, UserError) else 2)
    sys.exit(0)
