"""The one error a user is meant to see, and how errors of others are told."""

import re
import sys
from collections.abc import Sequence

MEMORY = re.compile(r"out of memory|OutOfMemory|MemoryError|can't allocate memory|low on memory|\bOOM\b")
DISK = re.compile(r"No space left on device|OutOfDiskError|os error 28")
RAISED = re.compile(r"^([\w.]+(?:Error|Exception)(?:: .+)?)$", re.MULTILINE)
"""The last line of a traceback in a text; of a chain of them the first is the cause of the others."""
LONGEST = 400


class UserError(ValueError):
    """A mistake in a setting, a file or a label that the user can mend.

    The message is one line that names the thing; the command line prints it without a traceback
    and exits with status 2 (promise 9 of the design).
    """

    status = 2


class CannotStartError(UserError):
    """The machine or the cluster lacks what a run needs to start; `diffgen doctor` says more."""


class IncompleteError(UserError):
    """All is done that can be, and a part of what was asked for is not there; exit status 3."""

    status = 3


def one_line(error: BaseException) -> str:
    """What an error says, without line breaks; the name of its type if it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def counted(number: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def warn(text: str) -> None:
    """A line on stderr that stops nothing."""
    print(f"warning: {text}", file=sys.stderr, flush=True)


def explained(error: Exception, words: Sequence[str]) -> str | None:
    """One line for what ended the command `words`, if that is a user's mistake or a want of the machine.

    Such are `UserError` and `OSError`, memory or a disk that is full, and all that Ray raises, here or in an
    actor. `None` for anything else: a mistake of ours, which needs its traceback.
    """
    cause = getattr(error, "cause", None) or error  # Ray's error of a task carries the task's own
    text = one_line(cause)
    of_ray = any(kind.__module__ == "ray.exceptions" for kind in type(error).__mro__)
    if of_ray and not isinstance(cause, UserError) and (raised := RAISED.search(str(error))):
        text = raised[1].removeprefix(f"{UserError.__module__}.{UserError.__name__}: ")
    said = f"{type(cause).__name__}: {text}"
    memory = MEMORY.search(said) is not None
    if not (of_ray or memory or DISK.search(said) or isinstance(cause, UserError | OSError)):
        return None
    if not isinstance(cause, UserError):
        text = text[:LONGEST]
    setting = _of_memory(words) if memory else ""
    return f"{text}: out of memory, lower {setting}" if setting else text


def _of_memory(words: Sequence[str]) -> str:
    """The setting that a command's memory depends on most."""
    command, part = [*words, "", ""][:2]
    if command == "train":
        parts = (part,) if part in {"image", "mask", "autoencoder"} else ("image", "mask")
        return " or ".join(f"training.{part}.micro_batch" for part in parts)
    return "sampling.micro_batch" if command in {"synthesize", "evaluate"} else ""
