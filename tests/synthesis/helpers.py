"""A run of synthesis in one process, for tests: the real coordinator, sampler and writer."""

import hashlib
from pathlib import Path
from typing import Any

from rich.console import Console

from diffgen import config
from diffgen.synthesis.driver import Summary, synthesize
from tests.conftest import TINY

QUIET = Console(quiet=True)


def settings(**synthesis: Any) -> config.Settings:
    sampling = synthesis.pop("sampling", {})
    return config.validate(config.merge(TINY, {"synthesis": synthesis, "sampling": sampling}))


def run(
    bundle: Path, out: Path | str, masks: Path | None = None, inline: bool = True, **synthesis: Any
) -> Summary:
    return synthesize(bundle, str(out), settings(**synthesis), masks, inline, QUIET)


def shard_hashes(out: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.glob("shard-*.tar"))
    }
