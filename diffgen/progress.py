"""The progress bars of all commands: what, how far, at which rate, how long still."""

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
