"""The command line: one thin function per command. Heavy imports are late, so that help is quick."""

import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from diffgen.errors import UserError, explained

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

Config = Annotated[
    str | None,
    typer.Option(
        "--config",
        "-c",
        help="Preset (demo, nuclei, small, modern, paper) or a YAML file.",
        show_default=False,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="One setting, such as `sampling.steps=50`. Repeatable."),
]


@app.command()
def prepare(
    sources: Annotated[
        list[str], typer.Argument(help="Slides, images, or folders of them.", show_default=False)
    ],
    out: Annotated[Path | None, typer.Option(help="Folder for the training shards. [default: data]")] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="`masks` (`<stem>_mask.png`), `stain` (weak labels), `none`; `maps`: sources are label maps."
        ),
    ] = None,
    mpp: Annotated[
        float | None,
        typer.Option(help="µm per pixel of files that do not say their own.", show_default=False),
    ] = None,
    inline: Annotated[bool, typer.Option("--inline", help="One process, without Ray.")] = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Cut slides and images into training shards.

    Reads OpenSlide formats, TIFF, PNG and JPEG, finds the tissue, and writes patches with label
    maps, a train/test split, statistics and a contact sheet.

    Example: `diffgen prepare slides/ --labels stain --out data`
    """
    from diffgen import places
    from diffgen.config import load

    options = {"prepare.labels": labels, "prepare.assume_mpp": mpp, "places.data": out}
    settings = load(config, overrides or (), options=options)
    from diffgen.data.prepare import prepare as run

    folder = Path(settings.places.data)
    run(sources, folder, settings, _console(), inline)
    places.remember("data", folder)
    _next(f"diffgen train --data {folder}")


Data = Annotated[Path | None, typer.Option(help="Prepared data. [default: the last prepared]")]
Run = Annotated[
    str | None,
    typer.Option(help="Name of the run, in the folder or URL `places.runs`; the same name resumes."),
]


@app.command()
def encode(
    data: Data = None,
    run: Run = None,
    inline: Annotated[bool, typer.Option("--inline", help="One process, without Ray.")] = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Encode all training images once, so that training does not have to.

    Goes on where it was stopped. `diffgen train` does the same at its start where
    `autoencoder.latents` is `stored`; here it can be done before, on other machines.

    Example: `diffgen encode --data data --set autoencoder.dihedral=8`
    """
    console = _console()
    data, settings = _training_settings(data, run, config, overrides, console)
    from diffgen.training.launch import prepare_latents

    prepare_latents(data, _run(settings), settings, console, inline)
    _next(f"diffgen train --data {data} --set autoencoder.latents=stored")


@app.command()
def train(
    which: Annotated[
        str, typer.Argument(help="`both`, `image`, `mask`, or before them `autoencoder`.")
    ] = "both",
    data: Data = None,
    run: Run = None,
    init_from: Annotated[
        str | None,
        typer.Option(
            help="Bundle whose weights a new run starts from: a folder, a URL, or a name (`default`).",
            show_default=False,
        ),
    ] = None,
    inline: Annotated[bool, typer.Option("--inline", help="One process, without Ray.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it takes: parameters, memory, FLOPs, time.")
    ] = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Train the image and the mask model, and write a bundle.

    Runs on Ray Train with as many workers as the settings say, or inline. A stopped run resumes
    from its last checkpoint when it is started again. Settings begin with those of the data.

    Example: `diffgen train --data data --run lung --set training.workers=4`
    """
    from diffgen import places

    if which not in {"both", "image", "mask", "autoencoder"}:
        raise UserError(f"train {which!r}: expected both, image, mask or autoencoder")
    parts: Any = ("mask", "image") if which == "both" else (which,)
    console = _console()
    data, settings = _training_settings(data, run, config, overrides, console)
    if which == "autoencoder":
        if init_from:
            raise UserError("train autoencoder: --init-from is of image and mask models")
        _train_autoencoder(data, settings, inline, dry_run, console)
        return
    if dry_run:
        from diffgen.labels import Labels
        from diffgen.training.forecast import forecast

        forecast(parts, settings, Labels.load(data / "labels.json"), console)
        return
    from diffgen.training.launch import launch

    folder = _run(settings)
    console.print(f"run: {folder}")
    try:
        start = _named(init_from) if init_from else None
        bundle = launch(parts, data, folder, settings, console, start, inline)
    except KeyboardInterrupt as stopped:
        console.print("[yellow]stopped[/]: the same command resumes from the last checkpoint")
        sys.exit(128 + getattr(stopped, "signal", 2))
    if "://" not in bundle:
        places.remember("bundle", Path(bundle))
    console.print(f"bundle: {bundle}   curves: tensorboard --logdir {folder}/tensorboard")
    _next(f"diffgen synthesize --bundle {bundle} --n 10 --size {settings.synthesis.size}")


def _train_autoencoder(data: Path, settings: Any, inline: bool, dry_run: bool, console: Any) -> None:
    from diffgen.training.autoencoder import new_autoencoder
    from diffgen.training.launch import launch_autoencoder

    if dry_run:
        size = sum(p.numel() for p in new_autoencoder(settings).parameters())
        console.print(
            f"autoencoder: {size / 1e6:.2f} M parameters, {settings.training.autoencoder.steps} steps"
        )
        return
    folder = _run(settings)
    console.print(f"run: {folder}")
    try:
        made = launch_autoencoder(data, folder, settings, console, inline)
    except KeyboardInterrupt as stopped:
        console.print("[yellow]stopped[/]: the same command resumes from the last checkpoint")
        sys.exit(128 + getattr(stopped, "signal", 2))
    console.print(f"autoencoder: {made}")
    _next(f"diffgen train --data {data} --set autoencoder.kind=conv")


@app.command()
def synthesize(
    bundle: Annotated[
        str | None,
        typer.Option(
            help="Generator: folder, URL, or name (`default`). [default: the last trained, or `default`]"
        ),
    ] = None,
    n: Annotated[int | None, typer.Option(help="Number of images.", show_default=False)] = None,
    size: Annotated[str | None, typer.Option(help="Pixels, `S` or `WxH`.", show_default=False)] = None,
    out: Annotated[str | None, typer.Option(help="Folder or filesystem URL. [default: out]")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all images.", show_default=False)] = None,
    context: Annotated[
        str | None, typer.Option(help="Context of all images. [default: by its share in the data]")
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(help="Folder of label maps (*.png) to fill instead of sampled ones.")
    ] = None,
    appearance: Annotated[
        list[Path] | None,
        typer.Option(help="Picture (or folder) whose stain the images take, by turns. Repeatable."),
    ] = None,
    samplers: Annotated[
        str | None, typer.Option(help="Sampler actors, or `auto`.", show_default=False)
    ] = None,
    emit: Annotated[
        str | None, typer.Option(help="`images`, or `tiles` of them with their place.", show_default=False)
    ] = None,
    tile: Annotated[
        int | None, typer.Option(help="Side of a tile in pixels. [default: 512]", show_default=False)
    ] = None,
    inline: Annotated[bool, typer.Option("--inline", help="One process, without Ray.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it takes: forwards, time, disk, memory.")
    ] = False,
    save_time_map: Annotated[
        bool, typer.Option("--save-time-map", help="Keep the time-state map of each step, and a film of it.")
    ] = False,
    mix_devices: Annotated[
        bool, typer.Option("--mix-devices", help="Go on where another kind of device began: other rounding.")
    ] = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Write WebDataset shards of synthetic images with their label maps.

    The same command resumes where it was stopped; a larger --n adds images. Any size from one
    patch up, square or not. Sampling settings begin with those of the bundle.

    Example: `diffgen synthesize --n 10000 --size 2048 --out s3://bucket/tissue`
    """
    from diffgen.config import load

    console = _console()
    folder = _fetched(bundle) if bundle else _last("bundle", console) or _trained_or_shipped(console)
    under = _saved(folder / "settings.yaml", f"{bundle or folder} is not a bundle: diffgen train")
    if masks and n is None:
        n = max(1, len(list(masks.glob("*.png"))))
    options = {"n": n, "size": size, "seed": seed, "context": context, "samplers": samplers}
    options |= {"emit": emit, "tile": tile, "mix_devices": mix_devices or None}
    values: dict[str, Any] = {f"synthesis.{key}": value for key, value in options.items()}
    settings = load(config, overrides or (), under, values | {"places.out": out})
    out = settings.places.out
    if masks and size:
        raise UserError("--masks gives each image its size; leave --size out")
    from diffgen.synthesis import driver

    looks = tuple(appearance or ())
    if dry_run:
        driver.dry_run(folder, settings, masks, console, looks)
        return
    console.print(f"out: {out}")

    try:
        done = driver.synthesize(folder, out, settings, masks, inline, console, save_time_map, looks)
    except KeyboardInterrupt:
        console.print(f"[yellow]stopped[/]: whole shards are in {out}; the same command resumes from there")
        sys.exit(130)
    size_text = "given label maps" if masks else f"{settings.synthesis.size} px"
    console.print(
        f"{done.made} images ({size_text}) in {done.seconds:.0f} s; "
        f"{settings.synthesis.n} images in {done.shards} shard(s): {done.out}"
    )
    if done.made:
        driver.summarise(done, console)
    _next(f"look at {out}/preview.png, then read {out}/README.md for five lines of loading code")


@app.command()
def evaluate(
    real: Annotated[
        str,
        typer.Argument(
            help="Training images: prepared data, shards or a folder, or a URL.", show_default=False
        ),
    ],
    synthetic: Annotated[
        str, typer.Argument(help="Shards, a folder or URL; or a bundle, sampled first.", show_default=False)
    ],
    held_out: Annotated[
        str | None,
        typer.Option(help="Real images the generator never saw. [default: the test split of prepared data]"),
    ] = None,
    out: Annotated[str | None, typer.Option(help="Folder of the report. [default: report]")] = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="Network of the features, such as `dinov2` or `owner/model`.", show_default=False),
    ] = None,
    paper: Annotated[
        bool,
        typer.Option("--paper", help="Also the paper's tables and figures: other methods, by a bundle."),
    ] = False,
    inline: Annotated[bool, typer.Option("--inline", help="One process, without Ray.")] = False,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Say how good, how diverse, how private and how useful synthetic images are.

    Writes `report.html`, one file that opens offline, `metrics.json`, and a section in the dataset
    card of the images. The same command resumes where it was stopped.

    Example: `diffgen evaluate data out`
    """
    from diffgen.config import load
    from diffgen.models.shipped import digests

    console = _console()
    if "://" not in synthetic and not Path(synthetic).exists() and synthetic in digests():
        synthetic = _named(synthetic)
    saved = Path(synthetic) / "settings.yaml"
    under = _saved(saved, "") if "://" not in synthetic and saved.exists() else {}
    under.pop("evaluation", None)  # defaults of the day when a bundle was trained say nothing of today's
    options = {"places.report": out, "evaluation.backbone": backbone}
    settings = load(config, overrides or (), under, options)
    if paper and "baselines" not in settings.evaluation.parts:
        more = {"evaluation.parts": [*settings.evaluation.parts, "baselines"]}
        settings = load(config, overrides or (), under, options | more)
    from diffgen.evaluation.evaluate import evaluate as run

    command = ["diffgen", *sys.argv[1:]]
    try:
        run(real, synthetic, held_out, settings, command, inline, console)
    except KeyboardInterrupt:
        console.print("[yellow]stopped[/]: no report is written; the same command resumes from there")
        sys.exit(130)
    folder = settings.places.report
    console.print(f"report: {folder}/report.html   figures: {folder}/metrics.json")
    _next(f"open {folder}/report.html in a browser")


def _training_settings(
    data: Path | None, run: str | None, config: str | None, overrides: list[str] | None, console: Any
) -> tuple[Path, Any]:
    """Prepared data, and the settings of a training on it, which begin with those of the data."""
    from diffgen.config import load

    data = data or _asked(config, overrides, "data") or _last("data", console) or _default("data", console)
    under = _saved(
        data / "settings.yaml", f"{data} holds no prepared data: diffgen prepare SOURCE… --out {data}"
    )
    return data, load(config, overrides or (), under, {"places.run": run, "places.data": data})


def _run(settings: Any) -> str:
    return f"{settings.places.runs.rstrip('/')}/{settings.places.run}"


def _named(bundle: str) -> str:
    """Where a bundle is that the user names, one that ships with diffgen among them."""
    from diffgen.models.shipped import resolve

    return resolve(bundle)


def _trained_or_shipped(console: Any) -> Path:
    """The bundle of the default run or, where nothing was trained, the one that ships with diffgen."""
    from diffgen.config import Places
    from diffgen.models.shipped import DEFAULT

    places = Places()
    trained = Path(places.runs) / places.run / "bundle"
    if trained.exists():
        console.print(f"bundle: {trained} (the default)")
        return trained
    console.print(f"bundle: {DEFAULT}, which comes with diffgen (nothing was trained here)")
    return Path(_named(DEFAULT))


def _fetched(bundle: str) -> Path:
    """A bundle's folder; from behind a URL a copy that is gone when we are."""
    import atexit
    import tempfile

    from diffgen.training.folder import fetched

    bundle = _named(bundle)
    copy = tempfile.TemporaryDirectory()
    atexit.register(copy.cleanup)
    return fetched(bundle, Path(copy.name))


def _saved(path: Path, otherwise: str) -> dict[str, Any]:
    from diffgen.config import read_yaml

    if not path.exists():
        raise UserError(otherwise)
    return read_yaml(path)


def _last(thing: Any, console: Any) -> Path | None:
    from diffgen import places

    path = places.recall(thing)
    if path is not None:
        shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        console.print(f"{thing}: {shown} (the last one made here)")
        return shown
    return None


def _asked(preset: str | None, overrides: list[str] | None, place: str) -> Path | None:
    """A place that the settings of this very command name."""
    from diffgen.config import given

    places = given(preset, overrides or ()).get("places")
    named = places.get(place) if isinstance(places, dict) else None  # of any other type: refused later
    return Path(named) if isinstance(named, str) else None


def _default(thing: Any, console: Any) -> Path:
    from diffgen.config import Places

    path = Path(Places().data)
    console.print(f"{thing}: {path} (the default)")
    return path


def _console() -> Any:
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)


def _next(command: str) -> None:
    _console().print(f"next: [bold]{command}[/]")


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
        sys.exit(error.status if isinstance(error, UserError) else 2)
    sys.exit(0)


if __name__ == "__main__":
    main()
