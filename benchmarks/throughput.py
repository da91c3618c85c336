"""How fast is `diffgen synthesize`, and what sets the limit? Five parts, a table each.

    python benchmarks/throughput.py [BUNDLE] [--only PART ...] [--json FILE] [--quick]

BUNDLE: a folder made by `diffgen train`; without one, the demo's models with random weights.

efficiency   forwards per second of the command on its Ray pool, from the first commit to the last shard ÷
             those of the bare image U-Net in a loop: same micro-batch, threads and mixture of patch sides,
             before and after each run (A B A), median. Only the image model runs (label maps are given).
             Wide patches count as the base patches that have as many pixels. Two samplers are held against
             bare loops in two processes, from when both have committed. Goals: 0.95 and 0.90.
paper        the command against the paper's sampler: random patches, one patch and one label at a time,
             a conditional and an ∅ forward each (label 0: only ∅), 250 DDIM steps with η = 1. Same
             weights and label maps, canvas four patches wide, a label a forward and ω = 3 on both sides.
             Forwards are counted whole; the paper's time is taken on some of its steps and scaled by
             forwards (--full: all). Goals: 16 times fewer forwards, 25 times less time.
coordinator  leases and commits of paper-size patches (4×64×64) by a worker that answers zeros at once:
             in this process, and over Ray with the pool's own loop. An H100 takes 1,000 of them per second.
scaling      what that makes of 1 to 512 samplers, by simulation (synthesis/simulate.py says what is assumed).
memory       most memory (RSS) of writer, coordinator and sampler, each its own process, for images up to
             16,384² written as tiles of 512; U-Nets and decoder are trivial, the rest is the command's own.
             Bytes per latent pixel are those of the arrays of the canvas; goal 16·C + 8.

On two cores all of it takes about an hour; --quick two minutes, with numbers that mean nothing.
--json adds to what the file has from other parts.
"""

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.synthesis.bundles import demo_bundle
from benchmarks.synthesis.coordinator import coordinator, show_coordinator
from benchmarks.synthesis.efficiency import efficiency, paper, show_efficiency, show_paper
from benchmarks.synthesis.effort import QUICK, Effort
from benchmarks.synthesis.memory import memory_of, show_memory
from benchmarks.synthesis.scaling import scaling, show_scaling
from diffgen.synthesis.pool import GPUS_FED

CONSOLE = Console()
CONSOLE.width = max(CONSOLE.width, 140)  # a table is not cut where it is written to a file


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?", metavar="BUNDLE")
    parts = ("efficiency", "paper", "coordinator", "scaling", "memory")
    parser.add_argument("--only", choices=parts, action="append", help="this part (may be given again)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write or update FILE")
    parser.add_argument("--quick", action="store_true", help="see that it works")
    parser.add_argument("--full", action="store_true", help="time all 250 steps of the paper's sampler")
    parser.add_argument("--repeats", type=int, help="runs a ratio is the median of (5)")
    parser.add_argument("--seconds", type=float, help="about how long a run of the command takes (40)")
    parser.add_argument("--samplers", type=int, nargs="+", default=[1, 2], help="for efficiency (1 2)")
    parser.add_argument(
        "--samplers-per-coordinator", type=int, default=GPUS_FED, help="for scaling (the pool's, with GPUs)"
    )
    given = parser.parse_args(arguments)
    effort = QUICK if given.quick else Effort()
    effort = replace(effort, repeats=given.repeats or effort.repeats, seconds=given.seconds or effort.seconds)
    chosen = [part for part in parts if not given.only or part in given.only]
    result: dict[str, Any] = {}
    if given.json and given.json.exists():
        result = json.loads(given.json.read_text())
    details = result.setdefault("details", {})
    machine = {"machine": platform.machine(), "cores": os.cpu_count(), "torch": torch.__version__}
    if torch.cuda.is_available():
        machine["gpu"] = torch.cuda.get_device_name()

    def keep(key: str, value: Any, table: Table) -> None:
        CONSOLE.print(table)
        result[key] = value
        details.setdefault("machine", {})[key] = machine
        if given.json:
            given.json.write_text(json.dumps(result, indent=2) + "\n")

    with tempfile.TemporaryDirectory() as temporary:
        if {"efficiency", "paper"} & set(chosen):
            from diffgen.cluster import connect

            connect()
            folder = given.bundle or demo_bundle(Path(temporary) / "bundle")
        if "efficiency" in chosen:
            found = details["efficiency"] = efficiency(folder, effort, given.samplers)
            keep("efficiency", {k: row["ratio"] for k, row in found.items()}, show_efficiency(found))
        if "paper" in chosen:
            found = details["paper"] = paper(folder, effort, given.full)
            ratios = {name: found[name] for name in ("forwards", "time")}
            keep("speedup_over_paper_sampler", ratios, show_paper(found))
        if "coordinator" in chosen:
            found = coordinator(effort)
            keep("coordinator", found, show_coordinator(found))
        if "scaling" in chosen:
            measured = result.get("coordinator", {}).get("64")
            found = scaling(effort, measured, given.samplers_per_coordinator)
            keep("scaling", found, show_scaling(found))
        if "memory" in chosen:
            found = {str(side): memory_of(side, effort.tile) for side in effort.sides}
            keep("peak_memory_mb", found, show_memory(found))


if __name__ == "__main__":
    main()
