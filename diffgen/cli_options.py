"""What commands share: options, what is read from their words, and how they speak and stop."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from diffgen import places
from diffgen.errors import UserError


def argument(help: str) -> Any:
    return typer.Argument(help=help, show_default=False)


def option(help: str, *names: str, **more: Any) -> Any:
    """An option; one without a default worth a word shows none."""
    return typer.Option(*names, help=help, show_default=False, **more)


Config = Annotated[
    str | None, option(f"Preset ({', '.join(places.presets())}) or a YAML file.", "--config", "-c")
]
Overrides = Annotated[
    list[str] | None,
    option("One setting, such as `sampling.steps=50`. Repeatable.", "--set", metavar="KEY=VALUE"),
]
Inline = Annotated[bool, option("One process, without Ray.", "--inline")]
Gpu = Annotated[bool | None, option("Use no GPU, also where there is one.", " /--cpu")]
DryRun = Annotated[bool, option("Only say what it takes: FLOPs, time, memory.", "--dry-run")]
Real = Annotated[str | None, option("Real images the generator learned from. [default: last prepared]")]
Data = Annotated[str | None, option("Prepared data, a folder or URL. [default: the last prepared]")]
InitFrom = Annotated[str | None, option("Bundle that a new run starts from.")]
Run = Annotated[str | None, option("Name of the run, in `places.runs`; the same name resumes.")]


def scales_of(words: list[str]) -> dict[str, float]:
    """PATTERN=µm of the command line."""
    found = {}
    for word in words:
        pattern, _, value = word.rpartition("=")
        try:
            found[pattern] = float(value)
        except ValueError:
            pattern = ""
        if not pattern:
            raise UserError(f"--mpp-override {word}: say PATTERN=µm per pixel, such as '*.tif=0.25'")
    return found


@contextmanager
def stoppable(said: str) -> Iterator[None]:
    """A signal ends the command with a line on how it goes on, and the signal's exit status."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        new_console().print(f"[yellow]stopped[/]: {said}")
        sys.exit(128 + getattr(stopped, "signal", 2))


def new_console() -> Any:
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)


def say_next(command: str) -> None:
    new_console().print(f"next: [bold]{command}[/]")
