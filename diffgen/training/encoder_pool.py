"""The autoencoder at work on Ray: shards of latents by a pool of actors, and what it is measured by."""

import logging
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffgen import config
from diffgen.cluster import actor_runtime_env, connect, need, networks_on
from diffgen.errors import UserError
from diffgen.models import autoencoder, bundle
from diffgen.training.latent_shards import LatentCacheKey, LatentShard, ShardEncoder
from diffgen.training.status_actor import ProgressCounter

POLL_S = 0.5


class PooledEncoder:
    """An actor of the pool: a shard's name and patches in, what failed out."""

    def __init__(
        self, data: str, folder: str, latent_key: dict[str, Any], threads: int, gpu: bool, tally: Any
    ) -> None:
        import ray

        torch.set_num_threads(threads)
        with tempfile.TemporaryDirectory() as scratch:
            codec = bundle.load(bundle.unpack(ray.get(tally.bundle.remote()), Path(scratch))).codec
        codec.to("cuda" if gpu else "cpu")
        self.encoder = ShardEncoder(Path(data), Path(folder), codec, LatentCacheKey(**latent_key), threads)
        self.tally = tally
        ray.get(tally.begin.remote())

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            self.encoder.encode(LatentShard.from_json(row["shard"]), self.tally.add.remote)
        except UserError as error:
            return {"failure": str(error)}
        return {"failure": ""}


def encode_on_ray(
    shards: Sequence[LatentShard],
    data: Path,
    folder: Path,
    packed: dict[str, bytes],
    latent_key: LatentCacheKey,
    training: config.Training,
    bar: Any,
) -> tuple[int, float]:
    """Encode these shards on a pool of actors: images, and the seconds that the pool was at work."""
    connect()
    import ray
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # importing ray.data turns its reports on
    gpus = 1 if training.gpu else 0
    need(training.threads, gpus, f"threads={training.threads}, gpu={training.gpu}")
    have = ray.cluster_resources()
    fitting = min(have.get("CPU", 0) // training.threads, have.get("GPU", 0) if gpus else len(shards))
    pool = ray.data.ActorPoolStrategy(
        size=max(1, min(int(fitting), len(shards))),
        max_tasks_in_flight_per_actor=1,  # a shard takes long: none waits behind another while an actor idles
    )
    tally = ray.remote(num_cpus=0)(ProgressCounter).remote(packed)
    constants = {
        "data": str(data.absolute()),
        "folder": str(folder.absolute()),
        "latent_key": asdict(latent_key),
        "threads": training.threads,
        "gpu": training.gpu,
        "tally": tally,
    }
    rows: list[dict[str, Any]] = [{"shard": shard.to_json()} for shard in shards]
    made = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        PooledEncoder,
        compute=pool,
        fn_constructor_kwargs=constants,
        num_cpus=training.threads,
        num_gpus=gpus or None,
        runtime_env=actor_runtime_env(training.gpu),
    )
    images, done = sum(len(shard.patches) for shard in shards) * latent_key.variants, threading.Event()
    watcher = threading.Thread(target=_watch, args=(tally, bar, images, done), daemon=True)
    watcher.start()
    try:
        for row in made.iter_rows():
            if row["failure"]:
                raise UserError(f"latents: {row['failure']}; the same command resumes")
        seconds = ray.get(tally.read.remote())[1]
    finally:
        done.set()
        watcher.join()
    return images, seconds


def _watch(tally: Any, bar: Any, images: int, done: threading.Event) -> None:
    """Draw the bar in the driver from the encoders' tally."""
    import ray

    task = bar.add_task("encode", total=images, figures="starting autoencoders")
    while not done.wait(POLL_S):
        encoded, seconds = ray.get(tally.read.remote())
        if encoded:
            bar.update(task, completed=encoded, figures=f"images  {encoded / seconds:.0f}/s")
    encoded, _ = ray.get(tally.read.remote())
    bar.update(task, completed=encoded)


def measure(
    codec: autoencoder.LatentCodec,
    images: Sequence[Tensor],
    standardize: bool,
    device: str,
    advance: Callable[[int], Any] = lambda _count: None,
) -> tuple[autoencoder.LatentCodec, float]:
    """The autoencoder with its latents' statistics by batches (B, 3, H, W), and its PSNR on the first.

    `advance` hears of images as they are encoded. Raises `UserError` where a latent channel does not vary.
    """

    def batches() -> Iterator[Tensor]:
        for batch in images:
            yield batch.to(device)
            advance(len(batch))

    codec = codec.to(device).measured(batches(), standardize)
    first = images[0].to(device)
    quality = autoencoder.psnr(first, codec.decode(codec.encode(first)).clamp(-1, 1))
    return codec.to("cpu"), quality


def measure_on_ray(
    codec: autoencoder.LatentCodec, images: Sequence[Tensor], standardize: bool, training: config.Training
) -> tuple[autoencoder.LatentCodec, float]:
    """What `measure` gives, by the device of a worker."""
    connect()
    import ray

    need(training.threads, int(training.gpu), f"threads={training.threads}, gpu={training.gpu}")
    task, device = networks_on(training.threads, training.gpu)(measure), "cuda" if training.gpu else "cpu"
    try:
        found: tuple[autoencoder.LatentCodec, float] = ray.get(
            task.remote(codec, images, standardize, device)
        )
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    return found
