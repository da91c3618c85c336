"""What a process of a distributed training does with its samples; apart, as spawned workers import it."""

import json
from pathlib import Path

import torch
from torch.utils.data import DataLoader

import diffgen


def read_as_rank(rank: int, world: int, shards: str, place: str) -> None:
    """Read all batches in step with the other ranks, and say which samples they were."""
    torch.distributed.init_process_group("gloo", f"file://{place}/met", rank=rank, world_size=world)
    loader = DataLoader(diffgen.open(shards).torch(), batch_size=1, num_workers=2)
    seen = []
    for image, ids, records in loader:
        assert (image.shape, ids.shape) == ((1, 48, 64, 3), (1, 48, 64))
        torch.distributed.all_reduce(torch.ones(1))  # hangs where another rank has no batch left
        seen.append(records[0]["index"])
    torch.distributed.barrier()
    Path(place, f"{rank}.json").write_text(json.dumps(seen))
    torch.distributed.destroy_process_group()
