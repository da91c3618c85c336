"""A recipe as one command: from a folder of pictures to a generator with its figures and its card.

    python jobs/bundle.py EBHI --recipe tissue --run tissue --budget 20h --device cpu
    python jobs/bundle.py EBHI --recipe tissue --run tissue --budget 8m --device cuda
    python jobs/bundle.py --unpack gpu-out --run tissue       # what a machine of `make gpu-pack` has made

pictures → prepare → autoencoder → latents → image model → mask model → bundle → evaluate → card. The budget
is shared out over what is still to do (`budget.py`). The same command resumes where it was stopped; what is
done is not done again. A part may come from elsewhere: --data, --autoencoder (a folder with weights), --image
and --mask (runs). Each part is a command of the command line, in this process, printed as it is run.
"""

import argparse
import importlib.util
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from diffgen import config
from diffgen.errors import UserError
from jobs import budget, record, sources
from jobs.join import join, put
from jobs.record import Record

ROOT = Path(__file__).resolve().parent.parent
LICENCES = ROOT / "jobs" / "data_licences.yaml"
DEVICES = {
    "cpu": ("gpu=false",),
    "cuda": (
        "gpu=true", "training.resident=true", "training.image.batch=128", "training.mask.batch=128",
    ),
}  # fmt: skip
"""Settings of a device, beside those of the recipe."""


@dataclass
class Job:
    """What the command was asked for, and how it is going."""

    recipe: str
    run: Path
    device: str
    source: Path | None = None
    data: Path | None = None
    autoencoder: Path | None = None
    image: Path | None = None
    mask: Path | None = None
    leave_out: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    ray: bool = False
    console: Console = field(default_factory=lambda: Console(highlight=False, soft_wrap=True))
    commands: list[str] = field(default_factory=list)
    """Of the part that is being done."""

    def __post_init__(self) -> None:
        self.given_data = self.data is not None
        self.data = self.data or self.run / "data"
        if self.image is not None:
            self.autoencoder = self.image / "bundle" / "autoencoder"

    @property
    def settings(self) -> config.Settings:
        return config.load(self.recipe, self.words_of_settings())

    def words_of_settings(self) -> list[str]:
        """KEY=VALUE of the device, the places and the command line, the last of which wins."""
        places = [f"places.runs={self.run.parent}"]
        own = [] if self.autoencoder is None else [f"autoencoder.source={self.autoencoder}"]
        return [*DEVICES[self.device], *places, *own, *self.overrides]

    def diffgen(self, *words: object, settings: Sequence[str] = ()) -> None:
        """A command of the command line, in this process; a user's mistake, and a signal, end the recipe."""
        from diffgen.cli import app

        line = [str(word) for word in words]
        for setting in [*self.words_of_settings(), *settings]:
            line += ["--set", setting]
        self.commands.append(shlex.join(["diffgen", *line]))
        self.console.print(f"$ {self.commands[-1]}")
        # Typer takes a KeyboardInterrupt for itself and returns a status.
        if status := app([*line, *([] if self.ray else ["--inline"])], standalone_mode=False):
            sys.exit(status)


def pictures(job: Job, _seconds: float) -> None:
    sources.pictures(job.recipe, _needed(job), job.run / "pictures")


def prepare(job: Job, _seconds: float) -> None:
    assert job.data is not None
    folder, table = sources.prepared_from(job.run / "pictures", _needed(job))
    contexts = [f"prepare.contexts={table}"] if table else []
    shutil.rmtree(job.data, ignore_errors=True)  # of a start that was stopped
    job.diffgen("prepare", folder, "--config", job.recipe, "--out", job.data, settings=contexts)


def _train(job: Job, part: str, seconds: float) -> None:
    words = ("train", part, "--data", job.data, "--run", job.run.name, "--config", job.recipe)
    job.diffgen(*words, settings=[f"training.max_seconds={seconds:.0f}"])


def autoencoder(job: Job, seconds: float) -> None:
    _train(job, "autoencoder", seconds)


def latents(job: Job, _seconds: float) -> None:
    job.diffgen("encode", "--data", job.data, "--run", job.run.name, "--config", job.recipe)


def image(job: Job, seconds: float) -> None:
    _train(job, "image", seconds)


def mask(job: Job, seconds: float) -> None:
    _train(job, "mask", seconds)


def joined(job: Job, _seconds: float) -> None:
    """The bundle of this run, with what comes from others in it."""
    own = job.run / "bundle"
    image_from = own if job.image is None else job.image / "bundle"
    mask_from = own if job.mask is None else job.mask / "bundle"
    if image_from != mask_from:
        join(image_from, mask_from, own)
    elif job.image is not None:
        put(image_from, own)


def evaluate(job: Job, _seconds: float) -> None:
    words = ("evaluate", job.data, job.run / "bundle", "--out", job.run / "report", "--config", job.recipe)
    job.diffgen(*words)


def card(job: Job, _seconds: float) -> None:
    """The model card, with all that the parts before have shown."""
    import json

    from diffgen.data.stream import statistics
    from diffgen.models import bundle
    from diffgen.training.card import Origin, model_card

    assert job.data is not None
    done, report = Record.of(job.run), job.run / "report" / "metrics.json"
    figures = json.loads(report.read_text(encoding="utf-8")) if report.exists() else None
    own = job.run / "bundle"
    origin = Origin(licence(job.recipe), done.commands, done.seconds, done.machine, figures)
    settings = config.validate(config.read_yaml(own / "settings.yaml"))
    text = model_card(bundle.load(own), settings, statistics(job.data), origin)
    (own / bundle.CARD).write_text(text, encoding="utf-8")


DOES: dict[str, Callable[[Job, float], None]] = {
    "pictures": pictures, "prepare": prepare, "autoencoder": autoencoder, "latents": latents, "image": image,
    "mask": mask, "bundle": joined, "evaluate": evaluate, "card": card,
}  # fmt: skip


def licence(recipe: str) -> dict[str, str] | None:
    """Name, paper, source and licence of a recipe's data, if it is in the table."""
    table: dict[str, dict[str, str]] = yaml.safe_load(LICENCES.read_text(encoding="utf-8"))
    return table.get(recipe)


def parts_of(job: Job, done: Record) -> list[str]:
    """The parts that are still to do, in their order."""
    settings = job.settings
    out = set(job.leave_out) | set(done.seconds)
    if job.given_data:
        out |= {"pictures", "prepare"}
    if settings.autoencoder.kind != "conv" or job.autoencoder is not None:
        out.add("autoencoder")
    if job.image is not None:
        out |= {"autoencoder", "image"}
    if job.mask is not None:
        out.add("mask")
    if "image" in out or settings.autoencoder.latents != "stored":
        out.add("latents")
    return [part for part in budget.SHARES if part not in out]


def work(job: Job, total: float) -> Record:
    """Do all parts that are not done, within `total` seconds over all starts."""
    done = Record.of(job.run)
    todo = parts_of(job, done)
    job.console.print(f"run: {job.run}   to do: {', '.join(todo) or 'nothing'}")
    for place, part in enumerate(todo):
        left = total - sum(done.seconds.values())
        given = done.given.setdefault(part, budget.shared_out(left, todo[place:])[part])
        if given < 1:
            raise UserError(f"the budget is used up before {', '.join(todo[place:])}; a larger one goes on")
        done.save()
        job.console.print(f"\n[bold]{part}[/]: {given:.0f} s of {left:.0f} s left")
        began = time.monotonic()
        DOES[part](job, given)
        done.end(part, time.monotonic() - began, job.commands, record.machine(job.device))
        job.commands.clear()
    assert job.data is not None
    record.tell(done, job.data, job.console)
    return done


def _needed(job: Job) -> Path:
    if job.source is None:
        raise UserError("bundle.py needs a folder of pictures, or --data with prepared ones")
    return job.source


def asked(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("source", nargs="?", type=Path, help="folder of pictures, as the data set comes")
    add("--recipe", default="tissue", help="preset in conf/, or a YAML file")
    add("--run", default="tissue", help="name of the run, in runs/")
    add("--budget", default="20h", help="time for all parts, over all starts: 20h, 8m, 1h30m")
    add("--device", choices=sorted(DEVICES), default="cpu")
    add("--data", type=Path, help="prepared data, instead of the source")
    add("--autoencoder", type=Path, help="folder of a trained autoencoder")
    add("--image", type=Path, help="run whose image model, with its autoencoder, is taken")
    add("--mask", type=Path, help="run whose mask model is taken")
    add("--without", action="append", default=[], choices=sorted(budget.SHARES), help="part to leave out")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting")
    add("--ray", action="store_true", help="train on Ray, by training.workers, instead of in this process")
    add("--pack", type=Path, metavar="FOLDER", help="gather what a machine without a network needs")
    add("--collect", type=Path, metavar="FOLDER", help="put the run's results there, in files below 16 MB")
    add("--unpack", type=Path, metavar="FOLDER", help="take such results into the run")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    from jobs import travel

    options: Any = asked(words)
    run = Path("runs") / options.run
    if options.unpack:
        travel.unpack(options.unpack, run)
        print(f"next: python jobs/bundle.py SOURCE --recipe {options.recipe} --run {options.run}")
        return
    if options.pack:
        travel.pack(options.source, options.pack, options.autoencoder)
        return
    if options.collect:
        travel.collect(run, options.collect)
        return
    if options.ray and importlib.util.find_spec("ray") is None:
        raise UserError("--ray: Ray is not installed here")
    job = Job(
        options.recipe, run, options.device, options.source, options.data, options.autoencoder, options.image,
        options.mask, tuple(options.without), tuple(options.set), options.ray,
    )  # fmt: skip
    work(job, budget.seconds(options.budget))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
