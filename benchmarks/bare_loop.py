"""What the benchmark of training holds the command against: loops with nothing in them but the work."""

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR

from diffgen import config
from diffgen.cluster import MALLOC_ENV
from diffgen.data.stream import PatchTable
from diffgen.label_maps import on_grid
from diffgen.labels import Labels
from diffgen.models import autoencoder, bundle
from diffgen.models.autoencoder import BATCH_PIXELS, LatentCodec
from diffgen.sampling.decode import from_picture
from diffgen.sampling.solvers import noise_schedule
from diffgen.training.train_state import BETAS


@dataclass(frozen=True)
class Stock:
    """All training patches in memory."""

    latents: Tensor
    """(N, C, H, W)"""
    maps: Tensor
    """(N, H, W), on the latent grid"""
    labels: Labels


def stored(data: Path, settings: config.Settings) -> Stock:
    """The training patches of the commonest size."""
    patches = PatchTable(data, "image")
    sizes = [(row["height"], row["width"]) for row in patches.rows]
    size = max(set(sizes), key=sizes.count)
    chosen = [number for number in range(len(patches)) if sizes[number] == size]
    images = torch.from_numpy(np.stack([from_picture(patches.picture(n)) for n in chosen]))
    codec = autoencoder.build(settings.autoencoder, [images[:64]])
    latents = torch.cat([codec.encode(part) for part in images.split(16)])
    blank = np.zeros(size, np.uint8)
    maps = [patches.label_map(n) if patches.rows[n]["labelled"] else blank for n in chosen]
    grids = np.stack([on_grid(label_map, codec.factor) for label_map in maps])
    return Stock(latents, torch.from_numpy(grids), patches.labels)


@contextmanager
def elsewhere(target: Callable[..., None], told: Sequence[tuple[Any, ...]]) -> Iterator[list[Any]]:
    """Processes with `target(*arguments)` for each of `told`; killed at the end.

    Their memory is allocated as the command's: its settings are to be had by any loop.
    """
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=target, args=some, daemon=True) for some in told]
    with mock.patch.dict(os.environ, MALLOC_ENV):
        for process in processes:
            process.start()
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()


@contextmanager
def looping(settings: config.Settings, stock: Stock, workers: int, times: Path) -> Iterator[list[int]]:
    """Pids of the loop in so many processes; the times of its steps' ends go to a file, a line each."""
    with tempfile.TemporaryDirectory() as folder:
        told = (settings, stock, workers, f"file://{folder}/meeting", times)
        with elsewhere(loop, [(rank, *told) for rank in range(workers)]) as processes:
            while not times.exists() or not times.stat().st_size:
                if not all(process.is_alive() for process in processes):
                    raise SystemExit("the bare loop failed")
                time.sleep(0.1)
            yield [process.pid for process in processes]


def loop(
    rank: int,
    settings: config.Settings,
    stock: Stock,
    workers: int,
    meeting: str,
    times: Path,
    steps: int = 10**6,
) -> None:
    """The shortest honest loop: one process of it."""
    torch.set_num_threads(settings.training.threads)
    torch.manual_seed(rank)
    part, diffusion, side = settings.training.image, settings.diffusion, settings.image_model.patch
    unet = bundle.new_image_unet(settings, stock.labels)
    model: nn.Module = unet
    if workers > 1:
        torch.distributed.init_process_group("gloo", meeting, rank=rank, world_size=workers)
        model = nn.parallel.DistributedDataParallel(unet)
    schedule: DDPMScheduler = noise_schedule(diffusion.steps, diffusion.schedule, diffusion.prediction)
    optimizer = AdamW(unet.parameters(), part.lr, BETAS, weight_decay=part.weight_decay)
    rate = OneCycleLR(optimizer, part.lr, total_steps=steps + 1, cycle_momentum=False)
    average = EMAModel(unet.parameters(), decay=part.ema, use_ema_warmup=True)
    latents, maps = stock.latents, stock.maps
    batch, room = part.batch // workers, latents.shape[-1] - side + 1
    for _ in range(steps):
        drawn = (torch.randint(end, (batch,)).tolist() for end in (len(latents), room, room))
        boxes = [(n, slice(y, y + side), slice(x, x + side)) for n, y, x in zip(*drawn, strict=True)]
        clean = torch.stack([latents[n, :, rows, columns] for n, rows, columns in boxes])
        labels_of = torch.stack([maps[n, rows, columns] for n, rows, columns in boxes])
        labels_of *= (torch.rand(batch, 1, 1) < part.p_conditional).to(torch.uint8)
        t, noise = torch.randint(diffusion.steps, (batch,)), torch.randn_like(clean)
        targets = {"epsilon": noise, "sample": clean, "v_prediction": schedule.get_velocity(clean, noise, t)}
        predicted = model(schedule.add_noise(clean, noise, t), t, labels_of)
        loss = F.mse_loss(predicted, targets[diffusion.prediction])
        loss.backward()
        nn.utils.clip_grad_norm_(unet.parameters(), part.clip)
        optimizer.step()
        optimizer.zero_grad()
        rate.step()
        average.step(unet.parameters())
        if rank == 0:
            with times.open("a") as file:
                file.write(f"{time.time()}\n")
    if workers > 1:
        torch.distributed.destroy_process_group()


def encoder_rate(codec: LatentCodec, images: Tensor, processes: int, seconds: float) -> float:
    """Images a second of the autoencoder alone, in so many processes of one thread each."""
    spawn = multiprocessing.get_context("spawn")
    answers: Any = spawn.Queue()
    told = (codec, images, seconds, spawn.Barrier(processes), answers)
    with elsewhere(encoder, [told] * processes):
        return float(sum(answers.get() for _ in range(processes)))


def encoder(codec: LatentCodec, images: Tensor, seconds: float, ready: Any, answers: Any) -> None:
    """The bare autoencoder: puts its images per second."""
    torch.set_num_threads(1)
    batches = images.split(max(1, BATCH_PIXELS["cpu"] // (images.shape[-1] * images.shape[-2])))
    codec.moments(batches[0])
    ready.wait()
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        batch = batches[done // len(batches[0]) % len(batches)]
        codec.moments(batch)
        done += len(batch)
    answers.put(done / (time.perf_counter() - began))
