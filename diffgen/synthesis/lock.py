"""One run at a time in an output folder: a second one would remove files that the first is building.

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
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

from filelock import FileLock, Timeout

from diffgen.errors import UserError, one_line
from diffgen.synthesis.store import HOLDER, LOCK, Store, warn

RENEW_S = 5.0
EXPIRE_S = 30.0  # of the reader's own clock without a renewal: clocks of two machines need not agree
SETTLE_S = 0.5  # an object store has no locks: of two that write a lease at once the last one has it


def held(store: Store) -> AbstractContextManager[None]:
    """While it is entered this process alone writes into the folder; `UserError` says who else does."""
    return _leased(store) if store.folder is None else _locked(store)


@contextlib.contextmanager
def _locked(store: Store) -> Iterator[None]:
    assert store.folder is not None
    try:
        store.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(store.folder / LOCK).acquire(timeout=0)
    except Timeout:
        raise UserError(_taken(store, _holder(store))) from None
    except OSError as error:
        raise UserError(f"{store.url}: cannot be read or written ({one_line(error)})") from error
    with lock:
        store.write(HOLDER, json.dumps(_me()).encode())
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                store.delete(HOLDER)
                (store.folder / LOCK).unlink(missing_ok=True)  # filelock sees that and makes another


@contextlib.contextmanager
def _leased(store: Store) -> Iterator[None]:
    """A lease is a file that its holder writes again and again; one that stays as it is has expired."""
    if (other := _holder(store)) is not None:
        warn(f"{store.url}: waiting {EXPIRE_S:g} s to see whether {_named(other)} is still at work there")
        ends = time.monotonic() + EXPIRE_S
        while time.monotonic() < ends and (now := _holder(store)) is not None:
            if now != other:
                raise UserError(_taken(store, now))
            time.sleep(min(1.0, EXPIRE_S / 10))
    mine = _me()
    _renew(store, mine)
    time.sleep(SETTLE_S)
    if not _is(store, mine):
        raise UserError(_taken(store, _holder(store)))
    ended = threading.Event()
    thread = threading.Thread(target=_keep, args=(store, mine, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(OSError):
            if _is(store, mine):
                store.delete(HOLDER)


def _keep(store: Store, mine: dict[str, Any], ended: threading.Event) -> None:
    """Renew a lease until the end, or until somebody else has it, who found it expired."""
    while not ended.wait(RENEW_S):
        try:
            if not _is(store, mine):
                warn(_taken(store, _holder(store)))
                return
            _renew(store, mine)
        except OSError as error:  # the next try may reach the store
            warn(f"{store.url}: the lease could not be renewed ({one_line(error)})")


def _renew(store: Store, mine: dict[str, Any]) -> None:
    store.write(HOLDER, json.dumps(mine | {"renewed": _now()}).encode())


def _is(store: Store, mine: dict[str, Any]) -> bool:
    return (_holder(store) or {}).get("token") == mine["token"]


def _me() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": _now(), "token": uuid.uuid4().hex}


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _holder(store: Store) -> dict[str, Any] | None:
    """Who holds the folder; nobody known where the file is not there or not whole."""
    try:
        found = json.loads(store.read(HOLDER))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _named(holder: dict[str, Any] | None) -> str:
    told = holder or {}
    since = str(told.get("since", "?"))[:19].replace("T", " ")
    return f"process {told.get('pid', '?')} on {told.get('host', '?')} (since {since} UTC)"


def _taken(store: Store, holder: dict[str, Any] | None) -> str:
    return f"{store.url}: {_named(holder)} is writing there; wait for its end or choose another --out"
