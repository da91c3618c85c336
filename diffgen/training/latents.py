"""Latents made once: the stored image patches → `DATA/latents/ID/`, a Parquet file a shard, by Ray Data.

Kept true: a file is at its path only when it is whole, so a run that was broken off goes on with the
shards it lacks, and `latents.json`, written last, marks the folder complete. ID is a digest of all that
the numbers depend on: latents of another autoencoder or of other data are never taken for these.
"""

import logging
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from diffgen import config, progress
from diffgen.cluster import computing, connect, need
from diffgen.data.stream import Patches, statistics
from diffgen.errors import UserError, one_line
from diffgen.files import write_text
from diffgen.models import bundle
from diffgen.training.board import Tally
from diffgen.training.latent_shards import COMPLETE, Facts, Shard, ShardEncoder, facts_of

POLL_S = 0.5


def encode(data: Path, base: Path, settings: config.Settings, console: Console) -> Path:
    """Encode all image patches of prepared `data` with the autoencoder of the bundle `base`: the folder.

    Nodes read and write `data` by this path; `base` needs to be here only. Shards that are there are kept.
    The line at the end tells seconds and rate from the first autoencoder's start to the last shard.
    Raises `UserError` where the data cannot be read, the folder not be written, or a latent is not finite.
    """
    statistics(data)
    packed = bundle.pack(base)
    facts = facts_of(data, bundle.load(base).codec, settings.autoencoder.dihedral)
    folder = data / "latents" / facts.identity
    if (folder / COMPLETE).exists():
        console.print(f"latents: {folder} (made before)", highlight=False, soft_wrap=True)
        return folder
    shards = shards_of(data)
    _claim(folder)
    left = [shard for shard in shards if not (folder / shard.file).exists()]
    images, seconds = _encode_all(left, data, folder, packed, facts, settings.training, console)
    patches, size = sum(len(shard.patches) for shard in shards), _size(folder, shards)
    rate = images / seconds if images else 0.0
    told = {"patches": patches, "bytes": size, "encoded": images, "seconds": seconds, "images_per_s": rate}
    write_text(folder / COMPLETE, facts.to_json(**told))
    before = len(shards) - len(left)
    kept = f", {before:,} of {len(shards):,} shards made before" if before else ""
    console.print(
        f"latents: {patches:,} patches × {facts.variants} variant{'s' * (facts.variants > 1)} "
        f"in {seconds:.0f} s ({rate:.0f} images/s{kept}), {_readable(size)}, {folder}",
        highlight=False,
        soft_wrap=True,
    )
    return folder


def shards_of(data: Path) -> list[Shard]:
    """The image shards of both splits, in order."""
    found: dict[str, Shard] = {}
    for split in ("train", "test"):
        for row in Patches(data, "image", split, cache_mb=0).rows:
            shard = found.setdefault(row["shard"], Shard(row["shard"], split))
            shard.patches.append((row["key"], row["source"], row["labelled"], row["height"] * row["width"]))
    if not found:
        raise UserError(f"{data} holds no image patches to encode")
    return list(found.values())


def _claim(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"latents cannot be written to {folder}: {one_line(error)}") from error


def _size(folder: Path, shards: Sequence[Shard]) -> int:
    return sum((folder / shard.file).stat().st_size for shard in shards)


def _readable(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.1f} GB"


# --- on Ray ---------------------------------------------------------------------------------------------


class PooledEncoder:
    """An actor of the pool: a shard's name and patches in, what failed out."""

    def __init__(
        self, data: str, folder: str, facts: dict[str, Any], threads: int, gpu: bool, tally: Any
    ) -> None:
        import ray

        torch.set_num_threads(threads)
        with tempfile.TemporaryDirectory() as scratch:
            codec = bundle.load(bundle.unpack(ray.get(tally.bundle.remote()), Path(scratch))).codec
        codec.to("cuda" if gpu else "cpu")
        self.encoder = ShardEncoder(Path(data), Path(folder), codec, Facts(**facts), threads)
        self.tally = tally
        ray.get(tally.begin.remote())

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            self.encoder.encode(Shard.from_json(row["shard"]), self.tally.add.remote)
        except UserError as error:
            return {"failure": str(error)}
        return {"failure": ""}


def _encode_all(
    shards: Sequence[Shard],
    data: Path,
    folder: Path,
    packed: dict[str, bytes],
    facts: Facts,
    training: config.Training,
    console: Console,
) -> tuple[int, float]:
    """Encode these shards on a pool of actors: images, and the seconds that the pool was at work."""
    if not shards:
        return 0, 0.0
    connect()
    import ray
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # importing ray.data turns its reports on
    gpus = 1 if training.gpu else 0
    need(training.threads, gpus, f"training.threads={training.threads}, training.gpu={training.gpu}")
    have = ray.cluster_resources()
    fitting = min(have.get("CPU", 0) // training.threads, have.get("GPU", 0) if gpus else len(shards))
    pool = ray.data.ActorPoolStrategy(
        size=max(1, min(int(fitting), len(shards))),
        max_tasks_in_flight_per_actor=1,  # a shard takes long: none waits behind another while an actor idles
    )
    tally = ray.remote(num_cpus=0)(Tally).remote(packed)
    constants = {
        "data": str(data.absolute()),
        "folder": str(folder.absolute()),
        "facts": asdict(facts),
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
        runtime_env=computing(training.gpu),
    )
    images, done = sum(len(shard.patches) for shard in shards) * facts.variants, threading.Event()
    with progress.bar(console) as bar:
        watcher = threading.Thread(target=_watch, args=(tally, bar, images, done), daemon=True)
        watcher.start()
        try:
            for row in made.iter_rows():
                if row["failure"]:
                    raise UserError(f"latents: {row['failure']}; the same command goes on")
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
