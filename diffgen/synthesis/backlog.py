"""What a run of `synthesize` has to do: a plan, a folder that is claimed for it, and what it lacks."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from diffgen import config
from diffgen.storage import Folder
from diffgen.synthesis.coordinator import Coordinator
from diffgen.synthesis.leases import Status
from diffgen.synthesis.plan import Plan
from diffgen.synthesis.run_record import per_shard
from diffgen.synthesis.shards import ShardWriter, choose_per_shard, num_shards, shard_indices

Report = Callable[[Status], None]
"""Shows how far a run is."""


@dataclass(frozen=True)
class Backlog:
    """Images 0 … n − 1 of a plan, and which of them each shard lacks."""

    plan: Plan
    packed: dict[str, bytes]
    """The bundle's files."""
    out: str
    n: int
    settings: config.Synthesis
    missing: dict[int, tuple[int, ...]]
    """Shard → indices of the samples to paint; a shard that is complete is not here."""

    @property
    def indices(self) -> list[int]:
        return [index for indices in self.missing.values() for index in indices]

    def writer(self) -> ShardWriter:
        plan, settings = self.plan, self.settings
        return ShardWriter(self.out, plan.run, self.per_shard, made_on=plan.made_on, mix=settings.mix_devices)

    @property
    def per_shard(self) -> int:
        """Samples a shard."""
        assert self.settings.images_per_shard != "auto", "settled by `claim`"
        return self.settings.images_per_shard

    def split(self, parts: int) -> list[list[int]]:
        """The samples to make in so many parts, each of neighbouring images."""
        images = self.images
        parts = min(parts, len(images))
        part_of = {image: k * parts // len(images) for k, image in enumerate(images)}
        split: list[list[int]] = [[] for _ in range(parts)]
        for index in self.indices:
            split[part_of[self.plan.where(index)[0]]].append(index)
        return split

    @property
    def total(self) -> int:
        """Samples that n images are."""
        return self.plan.first_sample(self.n)

    @property
    def images(self) -> list[int]:
        """Those to paint."""
        return sorted({self.plan.where(index)[0] for index in self.indices})

    @property
    def coordinator_settings(self) -> tuple[int, float, str, float]:
        """What a `Coordinator` is given beside plan and samples."""
        settings = self.settings
        return settings.in_flight, settings.lease_timeout_s, self.out, settings.snapshot_s

    def coordinator(self) -> Coordinator:
        return Coordinator(self.plan, self.indices, *self.coordinator_settings)

    def ready_shards(self, status: Status, begun: Collection[int]) -> list[int]:
        """Shards whose last missing sample is made or given up, and that are not begun."""
        ready = {*status.ready, *status.failed}
        return [k for k, missing in self.missing.items() if k not in begun and ready.issuperset(missing)]

    def failed(self, k: int, status: Status) -> dict[int, str]:
        """The missing samples of shard k that are given up, and why."""
        return {index: status.failed[index] for index in self.missing[k] if index in status.failed}


def claim(plan: Plan, packed: dict[str, bytes], out: str, settings: config.Synthesis) -> Backlog:
    """Make the folder ours and look what it lacks; whole tars without their mark are adopted.

    Samples a shard, where they are left to the folder, are settled in the backlog's settings. Raises
    `UserError` where the folder belongs to something else.
    """
    if settings.images_per_shard == "auto":
        chosen = per_shard(Folder(out)) or choose_per_shard(plan.first_sample(settings.n))
        settings = settings.model_copy(update={"images_per_shard": chosen})
    return rescan(Backlog(plan, packed, out, settings.n, settings, {}))


def rescan(backlog: Backlog) -> Backlog:
    """The backlog with what its folder lacks now."""
    writer, each = backlog.writer(), backlog.per_shard
    committed = writer.begin(backlog.total)
    missing = {}
    for k in range(num_shards(backlog.total, each)):
        if k not in committed:
            there = writer.salvage(k, backlog.total)
            missing[k] = tuple(i for i in shard_indices(k, backlog.total, each) if i not in there)
    return replace(backlog, out=writer.store.url, missing=missing)
