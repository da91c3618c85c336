"""`diffgen` with clocks in a run's driver and coordinators: `python timed.py synthesize …`.

A driver is also slow to hear an answer where its machine is busy. So it asks an actor that does nothing,
each time that it asks the coordinators; and these time their own calls, which a store that keeps them waiting
would make long. The last lines say both.
"""

import time
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from diffgen.cli import main
from diffgen.synthesis import pool
from diffgen.synthesis.coordinator import Coordinator
from diffgen.synthesis.leases import Lease, Result, Status


class Nothing:
    def answer(self) -> None:
        pass


class Timed(Coordinator):
    """Pickled by value, as it is of the main module."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.took: list[float] = []

    def lease(self, worker: str, budget: int) -> Lease:
        began = time.monotonic()
        given = super().lease(worker, budget)
        self.took.append(time.monotonic() - began)
        return given

    def commit(self, lease: int, work: Result) -> bool:
        began = time.monotonic()
        wanted = super().commit(lease, work)
        self.took.append(time.monotonic() - began)
        return wanted

    def times(self) -> list[float]:
        return self.took


class TimedPool(pool.Pool):
    def run(self, report: pool.Report) -> Status:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.nothing = ray.remote(num_cpus=0, scheduling_strategy=here)(Nothing).remote()
        self.empty: list[float] = []
        status = super().run(report)
        calls = [took for each in self._all("times") for took in each]
        print(f"\nan empty actor answers within {1000 * pool.within(self.empty):.0f} ms")
        print(f"{len(calls)} leases and commits took {1000 * pool.within(calls):.1f} ms at most (99 %)")
        return status

    def _status(self) -> Status:
        status = super()._status()
        began = time.monotonic()
        ray.get(self.nothing.answer.remote())
        self.empty.append(time.monotonic() - began)
        return status


if __name__ == "__main__":
    pool.Coordinator, pool.Pool = Timed, TimedPool  # type: ignore[misc]
    main()
