"""One command at a time in a folder: a second one would overwrite what the first is building.

Invariants: whoever enters `held` is alone in the folder until it leaves, and a process that died keeps
nobody out: of a local folder the system takes its lock away, behind a URL its lease is no longer renewed.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from filelock import FileLock, Timeout

from diffgen.errors import UserError, one_line, warn
from diffgen.storage import Folder

LOCK = ".lock"
HOLDER = ".lock.json"
"""Who holds the lock; behind a URL the lock itself."""
RENEW_S = 5.0
EXPIRE_S = 30.0  # of the reader's own clock without a renewal: clocks of two machines need not agree
LOOK_S = 0.1  # who asks for the holder (`holder`) has a share of a local lock for a moment
SETTLE_S = 0.5  # an object store has no locks: of two that write a lease at once the last one has it


def held(
    folder: Folder, option: str, patience_s: float = 0.0, say: Callable[[str], Any] = warn
) -> AbstractContextManager[None]:
    """While it is entered this process alone writes into the folder.

    Waits `patience_s` for another one to end, and `say`s so; then `UserError` says who it is, and which
    `option` of the command names another folder. A local filesystem without locks holds nothing.
    """
    hold = _locked if folder.local is not None else _leased
    return hold(folder, option, patience_s, say)


@contextlib.contextmanager
def _locked(folder: Folder, option: str, patience_s: float, say: Callable[[str], Any]) -> Iterator[None]:
    assert folder.local is not None
    lock = FileLock(folder.local / LOCK)
    try:
        folder.local.mkdir(parents=True, exist_ok=True)
        try:
            taken = lock.acquire(timeout=LOOK_S, poll_interval=LOOK_S / 5)
        except Timeout:
            if patience_s:
                say(f"{folder}: waiting for {_named(_holder(folder))} to end")
            taken = lock.acquire(timeout=patience_s, poll_interval=min(1.0, patience_s or 1.0))
    except Timeout:
        raise UserError(_taken(folder, _holder(folder), option)) from None
    except NotImplementedError:  # filelock's word for a filesystem without locks
        yield
        return
    except OSError as error:
        raise UserError(f"{folder}: cannot be read or written ({one_line(error)})") from error
    with taken:  # not `lock`, which would count a second hold and keep the first
        folder.write(HOLDER, json.dumps(_me()).encode())
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                folder.delete(HOLDER)
                (folder.local / LOCK).unlink(missing_ok=True)  # filelock sees that and makes another


@contextlib.contextmanager
def _leased(folder: Folder, option: str, patience_s: float, say: Callable[[str], Any]) -> Iterator[None]:
    """A lease is a file that its holder writes again and again; one that stays as it is has expired."""
    if (other := _holder(folder)) is not None:
        say(f"{folder}: waiting {EXPIRE_S:g} s to see whether {_named(other)} is still at work there")
        patient_until, expires = time.monotonic() + patience_s, time.monotonic() + EXPIRE_S
        while time.monotonic() < expires and (now := _holder(folder)) is not None:
            if now != other:
                if time.monotonic() > patient_until:
                    raise UserError(_taken(folder, now, option))
                other, expires = now, time.monotonic() + EXPIRE_S
            time.sleep(min(1.0, EXPIRE_S / 10))
    mine = _me()
    _renew(folder, mine)
    time.sleep(SETTLE_S)
    if not _is(folder, mine):
        raise UserError(_taken(folder, _holder(folder), option))
    ended = threading.Event()
    thread = threading.Thread(target=_keep, args=(folder, mine, option, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(OSError):
            if _is(folder, mine):
                folder.delete(HOLDER)


@dataclass(frozen=True)
class Holder:
    """Who holds a folder, or did last."""

    named: str
    """Process, host and since when."""
    since: float | None
    """s since 1970, by the holder's clock."""
    at_work: bool | None
    """Whether it still does; None where the filesystem cannot say."""


def holder(folder: Folder) -> Holder | None:
    """Who writes into the folder now, or did when it died; None after a clean end. Writes nothing.

    Of a lease whose renewal, by the clocks, is long ago the next one is waited for: clocks may differ.
    """
    found = _holder(folder)
    at_work = _is_locked(folder) if folder.local is not None else found is not None and _is_renewed(folder)
    if found is None and not at_work:
        return None
    return Holder(_named(found), _seconds((found or {}).get("since")), at_work)


def _is_locked(folder: Folder) -> bool | None:
    """By asking for a share of the lock, which is given back at once."""
    assert folder.local is not None
    try:
        import fcntl

        with (folder.local / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except (ImportError, OSError):  # no locks here, or not ours to read
        return None
    return False


def _is_renewed(folder: Folder) -> bool:
    first, ends = _holder(folder), time.monotonic() + 3 * RENEW_S
    renewed = _seconds((first or {}).get("renewed"))
    if renewed is not None and abs(time.time() - renewed) < 2 * RENEW_S:
        return True
    while time.monotonic() < ends:
        time.sleep(RENEW_S / 5)
        if (now := _holder(folder)) != first:
            return now is not None
    return False


def _seconds(text: Any) -> float | None:
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return None


def _keep(folder: Folder, mine: dict[str, Any], option: str, ended: threading.Event) -> None:
    """Renew a lease until the end, or until somebody else has it, who found it expired."""
    while not ended.wait(RENEW_S):
        try:
            if not _is(folder, mine):
                warn(_taken(folder, _holder(folder), option))
                return
            _renew(folder, mine)
        except OSError as error:  # the next try may reach the store
            warn(f"{folder}: the lease could not be renewed ({one_line(error)})")


def _renew(folder: Folder, mine: dict[str, Any]) -> None:
    folder.write(HOLDER, json.dumps(mine | {"renewed": _now()}).encode())


def _is(folder: Folder, mine: dict[str, Any]) -> bool:
    return (_holder(folder) or {}).get("token") == mine["token"]


def _me() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": _now(), "token": uuid.uuid4().hex}


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _holder(folder: Folder) -> dict[str, Any] | None:
    """Who holds the folder; nobody known where the file is not there or not whole."""
    try:
        found = json.loads(folder.read(HOLDER))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _named(holder: dict[str, Any] | None) -> str:
    known = holder or {}
    since = str(known.get("since", "?"))[:19].replace("T", " ")
    return f"process {known.get('pid', '?')} on {known.get('host', '?')} (since {since} UTC)"


def _taken(folder: Folder, holder: dict[str, Any] | None, option: str) -> str:
    return f"{folder}: {_named(holder)} is writing there; wait for its end or choose another {option}"
