"""A run of synthesis in one process, for tests: the real coordinator, sampler and writer."""

import hashlib
import math
import pickle
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from rich.console import Console

from diffgen import config
from diffgen.models.bundle import unpack
from diffgen.synthesis import driver
from diffgen.synthesis.backlog import Backlog, Report
from diffgen.synthesis.coordinator import Coordinator
from diffgen.synthesis.driver import Summary, synthesize
from diffgen.synthesis.leases import Lease, Result, Status
from diffgen.synthesis.sampler import Sampler
from tests.conftest import TINY

QUIET = Console(quiet=True)


def settings(**synthesis: Any) -> config.Settings:
    sampling = synthesis.pop("sampling", {})
    return config.validate(config.merge(TINY, {"synthesis": synthesis, "sampling": sampling}))


def run(
    bundle: Path,
    out: Path | str,
    masks: Path | None = None,
    inline: bool = True,
    watch: Report = lambda _: None,
    **synthesis: Any,
) -> Summary:
    return synthesize(bundle, str(out), settings(**synthesis), masks, inline, QUIET, watch=watch)


def run_in_turns(bundle: Path, out: Path, **synthesis: Any) -> Summary:
    """What the actors of a run do, without Ray: see `in_turns`."""
    with mock.patch.object(driver, "run_inline", in_turns):
        return run(bundle, out, **synthesis)


def in_turns(backlog: Backlog, report: Report) -> Status:
    """Two coordinators and three samplers, which answer in another order than they asked.

    All that they are given and say goes through bytes, as it does between processes.
    """
    plan, writer = sent(backlog.plan), backlog.writer()
    coordinators = [Coordinator(plan, part, *backlog.coordinator_settings) for part in backlog.split(2)]
    with tempfile.TemporaryDirectory() as folder:
        samplers = [Sampler(unpack(backlog.packed, Path(folder)), plan.sampling, None) for _ in range(3)]
    written, status = set[int](), Status()
    while not status.over or len(written) < len(backlog.missing):
        answers: list[Callable[[], None]] = []
        for k, sampler in enumerate(samplers):
            for coordinator in coordinators[k % 2 :] + coordinators[: k % 2]:
                lease = sent(coordinator.lease(f"sampler-{k}", backlog.settings.lease))
                if lease.kind not in ("over", "wait"):
                    result = sent(work(sampler, lease))
                    answers.append(partial(coordinator.commit, lease.id, result))
                    break
        for answer in reversed(answers):
            answer()
        first, *others = [coordinator.status() for coordinator in coordinators]
        status = sum(others, start=first)
        for k in backlog.ready_shards(status, written):
            samples = [sent(coordinator.take(backlog.missing[k])) for coordinator in coordinators]
            writer.complete(k, backlog.total, *samples, failed=backlog.failed(k, status))
            for coordinator in coordinators:
                coordinator.drop(backlog.missing[k])
            written.add(k)
        report(status)
    return status


def sent(thing: Any) -> Any:
    """What arrives where it is sent to another process."""
    return pickle.loads(pickle.dumps(thing))


class StopError(Exception):
    pass


class Watch:
    """The leases and patches that a run in one process has done; after `stop` leases it ends the run."""

    def __init__(self, stop: float = math.inf) -> None:
        self.stop, self.leases, self.patches = stop, 0, 0

    def __call__(self, status: Status) -> None:
        self.leases, self.patches = self.leases + 1, status.patches
        if self.leases >= self.stop:
            raise StopError


def work(sampler: Sampler, lease: Lease) -> Result:
    """All that a lease asks for."""
    return sampler.finish(lease, sampler.compute(lease))


def shard_hashes(out: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.glob("shard-*.tar"))
    }
