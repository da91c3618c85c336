"""The same coordinator, sampler and writer in one process, without Ray: for a notebook or a debugger."""

import tempfile
from pathlib import Path

from diffgen.models.bundle import unpack
from diffgen.synthesis.backlog import Backlog, Report
from diffgen.synthesis.leases import Status
from diffgen.synthesis.sampler import Sampler


def run_inline(backlog: Backlog, report: Report) -> Status:
    """Paint and write what the task lacks; the final figures."""
    coordinator, writer = backlog.coordinator(), backlog.writer()
    with tempfile.TemporaryDirectory() as folder:
        sampler = Sampler(unpack(backlog.packed, Path(folder)), backlog.plan.sampling, backlog.settings.gpu)
    written: set[int] = set()
    while not coordinator.over:
        lease = coordinator.lease("inline", backlog.settings.lease)
        coordinator.commit(lease.id, sampler.work(lease))
        status = coordinator.status()
        for k in backlog.ready_shards(status, written):
            samples = coordinator.take(backlog.missing[k])
            writer.complete(k, backlog.total, samples, failed=backlog.failed(k, status))
            coordinator.drop(backlog.missing[k])
            written.add(k)
        report(status)
    return coordinator.status()
