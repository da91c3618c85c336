"""Latents made once: the stored image patches → `DATA/latents/ID/`, an Arrow file per shard.

Invariants: a file is at its path only when it is whole, so a run that was interrupted resumes with the
shards it lacks, and `latents.json`, written last, marks the folder complete. ID is a digest of all that
the numbers depend on: latents of another autoencoder or of other data are never taken for these.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.filesize import decimal

from diffgen import config, progress
from diffgen.cluster import apply_malloc_env
from diffgen.data.stream import PatchTable, statistics
from diffgen.errors import UserError, one_line
from diffgen.models import bundle
from diffgen.models.autoencoder import LatentCodec
from diffgen.storage import write_text
from diffgen.training.encoder_pool import encode_on_ray
from diffgen.training.latent_shards import COMPLETE, LatentCacheKey, LatentShard, ShardEncoder, cache_key


def encode(data: Path, base: Path, settings: config.Settings, console: Console, inline: bool = False) -> Path:
    """Encode all image patches of prepared `data` with the autoencoder of the bundle `base`: the folder.

    On a pool of Ray's actors, or `inline` in this process. Nodes read and write `data` by this path; `base`
    needs to be here only. Shards that are there are kept. The line at the end tells seconds and rate from
    the first autoencoder's start to the last shard. Raises `UserError` where the data cannot be read, the
    folder not be written, or a latent is not finite.
    """
    statistics(data)
    codec = bundle.load(base).codec
    latent_key = cache_key(data, codec, settings.autoencoder.dihedral)
    folder = data / "latents" / latent_key.identity
    if (folder / COMPLETE).exists():
        console.print(f"latents: {folder} (made before)", highlight=False, soft_wrap=True)
        return folder
    shards = shards_of(data)
    _claim(folder)
    left = [shard for shard in shards if not (folder / shard.file).exists()]
    images, seconds = 0, 0.0
    if left:
        with progress.bar(console) as bar:
            if inline:
                images, seconds = encode_here(left, data, folder, codec, latent_key, settings.training, bar)
            else:
                packed = bundle.pack(base)
                images, seconds = encode_on_ray(
                    left, data, folder, packed, latent_key, settings.training, bar
                )
    patches = sum(len(shard.patches) for shard in shards)
    size = sum((folder / shard.file).stat().st_size for shard in shards)
    rate = images / seconds if images else 0.0
    summary = {"patches": patches, "bytes": size, "encoded": images, "seconds": seconds, "images_per_s": rate}
    write_text(folder / COMPLETE, latent_key.to_json(**summary))
    before = len(shards) - len(left)
    kept = f", {before:,} of {len(shards):,} shards made before" if before else ""
    console.print(
        f"latents: {patches:,} patches × {latent_key.variants} variant{'s' * (latent_key.variants > 1)} "
        f"in {seconds:.0f} s ({rate:.0f} images/s{kept}), {decimal(size)}, {folder}",
        highlight=False,
        soft_wrap=True,
    )
    return folder


def shards_of(data: Path) -> list[LatentShard]:
    """The image shards of both splits, in order."""
    found: dict[str, LatentShard] = {}
    for split in ("train", "test"):
        for row in PatchTable(data, "image", split, cache_mb=0).rows:
            shard = found.setdefault(row["shard"], LatentShard(row["shard"], split))
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


def encode_here(
    shards: Sequence[LatentShard],
    data: Path,
    folder: Path,
    codec: LatentCodec,
    latent_key: LatentCacheKey,
    training: config.Training,
    bar: Any,
) -> tuple[int, float]:
    """Encode these shards one after another in this process: images, and seconds."""
    if not training.gpu:
        apply_malloc_env()
    torch.set_num_threads(training.threads)
    codec.to("cuda" if training.gpu else "cpu")
    encoder = ShardEncoder(data, folder, codec, latent_key, training.threads)
    images, began = sum(len(shard.patches) for shard in shards) * latent_key.variants, time.monotonic()
    task = bar.add_task("encode", total=images, figures="")

    def tell(count: int) -> None:
        bar.advance(task, count)
        rate = bar.tasks[task].completed / max(1e-9, time.monotonic() - began)
        bar.update(task, figures=f"images  {rate:.0f}/s")

    for shard in shards:
        try:
            encoder.encode(shard, tell)
        except UserError as error:
            raise UserError(f"latents: {error}; the same command resumes") from error
    return images, time.monotonic() - began
