"""The progress bars of all commands: what, how far, at which rate, how long still."""

from collections.abc import Collection, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")


def bar(console: Console, transient: bool = False) -> Progress:
    """A progress bar; tasks take a field `figures`, a short text shown beside the count.

    `transient`: it is gone when it is done, and where there is no terminal it is not drawn.
    """
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=transient,
        disable=transient and not console.is_interactive,  # else an empty line would stay of it
    )


def each(items: Collection[T], console: Console, what: str, figures: str = "") -> Iterator[T]:
    """The items one by one, behind a bar that is gone when it is done."""
    with bar(console, transient=True) as drawn:
        yield from drawn.track(items, task_id=drawn.add_task(what, total=len(items), figures=figures))
