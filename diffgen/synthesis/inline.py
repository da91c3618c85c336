"""The same coordinator, sampler and writer in one process, without Ray: for a notebook or a debugger."""

import tempfile
from pathlib import Path

from diffgen.models.bundle import unpack
from diffgen.synthesis.backlog import Backlog, Report
from diffgen.synthesis.leases import Status
from diffgen.synthesis.sampler import Sampler


def run_inline(task: Backlog, report: Report) -> Status:
    """Paint and write what the task lacks; the final figures."""
    coordinator, writer = task.coordinator(), task.writer()
    with tempfile.TemporaryDirectory() as folder:
        sampler = Sampler(unpack(task.packed, Path(folder)), task.plan.sampling)
    written: set[int] = set()
    while not coordinator.over:
        lease = coordinator.lease("inline", task.settings.lease)
        coordinator.commit(lease.id, sampler.work(lease))
        status = coordinator.status()
        for k in task.ripe(status, written):
            writer.complete(k, task.total, coordinator.take(task.lacking[k]))
            coordinator.drop(task.lacking[k])
            written.add(k)
        report(status)
    return coordinator.status()
