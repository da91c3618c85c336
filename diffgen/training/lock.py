"""One command at a time on a run: two would overwrite each other's checkpoints."""

import contextlib
import fcntl
import time
from collections.abc import Iterator

from rich.console import Console

from diffgen.errors import UserError
from diffgen.training.folder import RunFolder

LOCK = ".lock"
PATIENCE_S = 120.0  # NFS takes a minute and a half to see that the machine which held a lock is gone


@contextlib.contextmanager
def held(run: RunFolder, console: Console, patience_s: float = PATIENCE_S) -> Iterator[None]:
    """While it is entered this command has the run; `UserError` where another has it and keeps it.

    The system lets go of it however the process ends. A store behind a URL, and a filesystem without locks,
    hold nothing.
    """
    if run.local is None:
        yield
        return
    run.local.mkdir(parents=True, exist_ok=True)
    with (run.local / LOCK).open("w") as file:
        ends, told = time.monotonic() + patience_s, False
        while not _locked(file.fileno()):
            if time.monotonic() > ends:
                raise UserError(f"another command is at work on run {run}; choose another --run")
            if not told:
                console.print(f"waiting for another command that is at work on run {run}", highlight=False)
            told = True
            time.sleep(min(1.0, patience_s))
        yield


def _locked(number: int) -> bool:
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # there are no locks here
    return True
