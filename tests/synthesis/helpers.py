"""A run of synthesis in one process, for tests: the real coordinator, sampler and writer."""

import hashlib
import math
from pathlib import Path
from typing import Any

from rich.console import Console

from diffgen import config
from diffgen.synthesis.backlog import Report
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
