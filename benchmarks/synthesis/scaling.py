"""What the coordinator's pace makes of many samplers, by simulation."""

from dataclasses import asdict, replace
from typing import Any

from rich.table import Table

from benchmarks.synthesis import simulate
from benchmarks.synthesis.effort import Effort
from diffgen.schema import Sampling

STEPS = Sampling().steps_for(1)
ASSUMED: dict[str, Any] = {
    "in_process": {"lease_us_per_patch": 60.0, "commit_us_per_patch": 60.0, "step_ns_per_latent_pixel": 40.0},
    "ray": {"patches_per_second": 4000.0, "round_trip_ms": 3.0},
}
"""Where the coordinator was not measured before."""


def costs_of(measured: dict[str, Any], render_s: float = 0.0) -> simulate.Costs:
    """The coordinator's time over Ray: what the class takes by itself, the rest a call's and its bytes'."""
    inside, ray = measured["in_process"], measured["ray"]
    lease_s, commit_s = (inside[f"{name}_us_per_patch"] / 1e6 for name in ("lease", "commit"))
    step_s = inside["step_ns_per_latent_pixel"] / 1e9
    an_average_patch = 256**2 / 28.9  # stepped pixels a patch, of the images it was measured with
    rest = max(0.0, 1 / ray["patches_per_second"] - lease_s - commit_s - step_s * an_average_patch) / 2
    trip = ray["round_trip_ms"] / 1e3
    return simulate.Costs(lease_s + rest, commit_s + rest, step_s, trip / 4, trip, render_s=render_s)


def scaling(effort: Effort, measured: dict[str, Any] | None, per_coordinator: int) -> dict[str, Any]:
    """Efficiency by samplers, for many images and for one; `measured`: part `coordinator`, lease 64."""
    costs = costs_of(measured or ASSUMED)
    found: dict[str, Any] = {
        "measured": measured is not None,
        "costs": asdict(costs),
        "samplers_per_coordinator": per_coordinator,
        "many": {},
        "one_stepwise": {},
        "one_blockwise": {},
    }
    for samplers in (1, 8, 64, 512):
        fleet = simulate.Fleet(samplers, per_coordinator, budget=64)
        n = max(min(effort.images, 100 * samplers), min(effort.images, 400))  # fewer for few: the same ratio
        found["many"][str(samplers)] = asdict(simulate.many_images(n, 256, 64, STEPS, fleet, costs))
        side = 2048 if effort.images > 1000 else 512
        one = replace(fleet, samplers_per_coordinator=samplers, micro_batch=8, in_flight=1)
        for name, by_blocks in (("one_stepwise", False), ("one_blockwise", True)):
            found[name][str(samplers)] = asdict(simulate.one_image(side, 64, STEPS, by_blocks, one, costs))
    return found


def show_scaling(found: dict[str, Any]) -> Table:
    names = {
        "many": "10,000 images of 2048²",
        "one_stepwise": "one image of 16,384², step by step, micro-batch 8",
        "one_blockwise": "the same, by blocks",
    }
    table = Table("efficiency of samplers", *found["many"], title="scaling, simulated: 1 ms a patch")
    table.caption = f"{'measured' if found['measured'] else 'ASSUMED'} costs: " + ", ".join(
        f"{name} {value:.2g}" for name, value in found["costs"].items()
    )
    for name, what in names.items():
        cells = [f"{row['efficiency']:.3f}" for row in found[name].values()]
        table.add_row(what, *cells)
    busy = [f"{row['coordinator_busy']:.0%}" for row in found["many"].values()]
    table.add_row("the busiest coordinator of the first row", *busy)
    return table
