"""What a run asks of its object store: requests, as S3 counts and sells them.

Counted, not guessed: these are what the S3 client of pyarrow sends for driver, writer and lock of a run
that nothing interrupts. `tests/synthesis/test_store_requests.py` compares them with what a server received.
"""

from dataclasses import dataclass

from diffgen.synthesis.card import PREVIEW_SAMPLES
from diffgen.synthesis.shards import num_shards, shard_of
from diffgen.urls import CHUNK

PART_BYTES = 10 << 20
"""Of a part of an upload, that takes a request to begin and one to end; a smaller file takes one in all."""


@dataclass(frozen=True)
class Requests:
    """By what they are sold as."""

    writes: int
    """PUT, POST and LIST: what costs about ten times as much as a read."""
    reads: int
    """GET and HEAD. Deletions are free."""

    def __add__(self, other: "Requests") -> "Requests":
        return Requests(self.writes + other.writes, self.reads + other.reads)

    def times(self, factor: int) -> "Requests":
        return Requests(self.writes * factor, self.reads * factor)


RUN = Requests(writes=20, reads=9)
"""The folder's lock, `run.json`, settings, manifest, labels, card and preview, and looks into the folder."""
SHARD = Requests(writes=4 + 1, reads=6)
"""Four looks for what may be there, its part of the manifest, read at the end; beside its tar."""
RENEWAL = Requests(writes=1, reads=2)
"""Of the folder's lock, every `lock.RENEW_S` seconds of the run."""


def store_requests(samples: int, per_shard: int, sample_bytes: float) -> Requests:
    """Of a run of so many samples into an empty folder, without renewals of the lock and snapshots."""
    found = RUN
    shards = num_shards(samples, per_shard)
    for size, count in _sizes(samples, per_shard, sample_bytes):
        found += (SHARD + Requests(_writes(size), 0)).times(count)
    shown = min(PREVIEW_SAMPLES, samples)
    for k in range(min(shards, shard_of(shown - 1, per_shard) + 1)):
        read = min(shown - k * per_shard, per_shard) * sample_bytes
        found += Requests(0, 1 + max(1, -(-int(read) // CHUNK)))
    return found


def _writes(size: int) -> int:
    """Of a file of so many bytes."""
    return 1 if size < PART_BYTES else 2 + -(-size // PART_BYTES)


def _sizes(samples: int, per_shard: int, sample_bytes: float) -> list[tuple[int, int]]:
    """Bytes of a full shard and of the last one, each with how many there are."""
    full, rest = divmod(samples, per_shard)
    sizes = [(per_shard, full), (rest, 1)]
    return [(max(1, int(held * sample_bytes)), count) for held, count in sizes if held and count]
