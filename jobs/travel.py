"""A recipe on a machine with a card and without a network: what goes there, and what comes back.

`make gpu-pack` fills a folder with code, pictures and wheels (`pack`); `run.sh` in it, the one command there,
runs the recipe and leaves its results in few, small files (`collect`); `unpack` takes these into a run.

Invariants: a pack is below 60 MB, a result at most eight files of at most 16 MB; a file that holds weights
is whole or refused.
"""

import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from rich.progress import track

from diffgen.errors import UserError
from jobs.record import FILE, HERE_ONLY, Record, curves, megabytes

ROOT = Path(__file__).resolve().parent.parent
CODE = ("diffgen", "conf", "jobs", "benchmarks")
PACK_MB, FILE_MB, FILES = 60.0, 16.0, 8
QUALITIES = range(95, 39, -1)
"""AVIF without subsampled colour: at equal size it loses 2 dB less than WebP or JPEG on H&E."""
SAMPLE = 20
"""Every n-th picture tells the size of all."""
PIECE = 15 * 2**20
PICTURES, BUNDLE, CHECKPOINT = "pictures.tar.gz", "bundle.tar", "checkpoint.tar"


def pack(source: Path, out: Path, autoencoder: Path | None) -> None:
    """Code, pictures and `run.sh` into the folder `out`, beside the wheels that are there already.

    The pictures of `source`/images are encoded anew, as well as the room left allows; `source`/masks go as
    they are, and so do the weights of an autoencoder. `UserError` where there is no room.
    """
    images, masks = sorted((source / "images").glob("*")), sorted((source / "masks").glob("*"))
    if not images:
        raise UserError(f"{source}: no pictures in {source}/images")
    for name in CODE:
        ignored = shutil.ignore_patterns("__pycache__", ".*", "bundles")
        shutil.copytree(ROOT / name, out / "code" / name, ignore=ignored, dirs_exist_ok=True)
    if autoencoder is not None:
        shutil.copytree(autoencoder, out / "autoencoder", dirs_exist_ok=True)
    shutil.copy(ROOT / "jobs" / "run.sh", out / "run.sh")
    (out / PICTURES).unlink(missing_ok=True)
    room = (PACK_MB - megabytes(out)) * 1e6 - sum(path.stat().st_size for path in masks)
    quality = fitting(images, room)
    _write_pictures(out / PICTURES, images, masks, quality)
    while megabytes(out) > PACK_MB:  # the guess from a sample was a little low
        quality -= 1
        _write_pictures(out / PICTURES, images, masks, quality)
    print(f"{out}: {megabytes(out):.1f} MB, {len(images)} pictures at AVIF quality {quality}")


def _write_pictures(out: Path, images: Sequence[Path], masks: Sequence[Path], quality: int) -> None:
    with tarfile.open(out, "w:gz", compresslevel=1) as tar:  # of the tar's own padding, a megabyte
        for path in track(images, f"AVIF quality {quality}"):
            _add(tar, f"images/{path.stem}.avif", encoded(path, quality))
        for path in masks:
            tar.add(path, f"masks/{path.name}")


def fitting(images: Sequence[Path], room: float) -> int:
    """The highest quality at which all pictures have room, in bytes, judged by some of them."""
    some = images[::SAMPLE]

    def fits(quality: int) -> bool:
        size = sum(len(encoded(path, quality)) for path in some)
        return size * len(images) / len(some) * 1.01 < room

    low, high = 0, len(QUALITIES)  # the first that fits, by halving
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(QUALITIES[middle]) else (middle + 1, high)
    if low == len(QUALITIES):
        raise UserError(f"{len(images)} pictures do not fit in {max(room, 0) / 1e6:.1f} MB")
    return QUALITIES[low]


def encoded(path: Path, quality: int) -> bytes:
    """A picture as AVIF."""
    sink = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").save(sink, "AVIF", quality=quality, subsampling="4:4:4", speed=6)
    return sink.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


# --- what comes back ------------------------------------------------------------------------------------


def collect(run: Path, out: Path) -> None:
    """The results of a run into the folder `out`: bundle in half precision, curves, samples, checkpoint.

    The checkpoint, weights without an average and without the optimiser, is left out where there is no room.
    """
    if not (run / "bundle").is_dir():
        raise UserError(f"{run} has no bundle yet")
    out.mkdir(parents=True, exist_ok=True)
    for old in [*out.glob(f"{BUNDLE}.*"), *out.glob(f"{CHECKPOINT}.*")]:
        old.unlink()
    (out / "curves.json").write_text(json.dumps(curves(run)), encoding="utf-8")
    grids(sorted((run / "samples").glob("*.png")), out / "samples.png")
    with tempfile.TemporaryFile() as tar:
        _tar(run, [run / "bundle", run / FILE], tar, half)
        _split(tar, out / BUNDLE)
    with tempfile.TemporaryFile() as tar:
        _tar(run, sorted((run / "best").glob("*/step-*/unet")), tar, Path.read_bytes)
        left = FILES - len([path for path in out.iterdir() if path.is_file()])
        left -= not (out / "gpu.json").exists()  # the benchmark's, which runs after
        if 0 < tar.tell() <= left * PIECE:
            _split(tar, out / CHECKPOINT)
        else:
            print("checkpoint: left out, the averaged weights of the bundle are what there is")
    found = sorted(path for path in out.iterdir() if path.is_file())
    for path in found:
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
    if len(found) > FILES:
        raise UserError(f"{out} holds {len(found)} files, more than {FILES}")


def half(path: Path) -> bytes:
    """A file, with 32-bit weights of safetensors in 16 bits."""
    if path.suffix != ".safetensors":
        return path.read_bytes()
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file, save

    with safe_open(path, "pt") as file:
        notes = file.metadata()
    weights = {
        name: weight.half() if weight.dtype == torch.float32 else weight
        for name, weight in load_file(path).items()
    }
    return bytes(save(weights, notes))


def grids(found: Sequence[Path], out: Path) -> None:
    """The last grid of samples of each part, one above the other."""
    last = {path.name.rpartition("-")[0]: path for path in found}
    pictures = [Image.open(path).convert("RGB") for path in last.values()]
    if not pictures:
        return
    size = max(picture.width for picture in pictures), sum(picture.height for picture in pictures)
    sheet, top = Image.new("RGB", size, "white"), 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height
    sheet.save(out)


def _tar(run: Path, paths: Sequence[Path], into: Any, read: Callable[[Path], bytes]) -> None:
    """Files and folders of a run by their names in it; nothing at all where there is none."""
    found = [path for path in paths if path.exists()]
    if not found:
        return
    with tarfile.open(fileobj=into, mode="w") as tar:
        for path in found:
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.is_file():
                    _add(tar, file.relative_to(run).as_posix(), read(file))
    into.seek(0, io.SEEK_END)


def _split(tar: Any, out: Path) -> None:
    tar.seek(0)
    pieces = list(iter(lambda: tar.read(PIECE), b""))
    for number, piece in enumerate(pieces, 1):
        out.with_name(f"{out.name}.{number}of{len(pieces)}").write_bytes(piece)


def unpack(folder: Path, run: Path) -> None:
    """What `collect` has left into a run, as its bundle; `UserError` where the run has one, or a piece lacks.

    Prepared data and latents do not travel: they are made here when they are needed.
    """
    if (run / "bundle").exists():
        raise UserError(f"{run} holds a bundle already; choose another --run")
    if not any(folder.glob(f"{BUNDLE}.*")):
        raise UserError(f"{folder} holds no {BUNDLE}: not what run.sh leaves")
    run.mkdir(parents=True, exist_ok=True)
    for name in (BUNDLE, CHECKPOINT):
        for path, data in _untarred(folder, name):
            target = run / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
    for name in ("curves.json", "samples.png", "gpu.json"):
        if (folder / name).exists():
            shutil.copy(folder / name, run / name)
    Record.of(run).forget(HERE_ONLY)
    print(f"{run}/bundle: {megabytes(run / 'bundle'):.1f} MB")
    print(f"to train on: diffgen train --init-from {run}/bundle --run {run.name}-2 --data DATA")


def _untarred(folder: Path, name: str) -> Iterator[tuple[str, bytes]]:
    """(path, content) of the files in the pieces of a tar; nothing is given where a piece is not whole."""
    found = {path.suffix[1:]: path for path in folder.glob(f"{name}.*")}
    if not found:
        return
    count = int(next(iter(found)).partition("of")[2])
    pieces = [found.get(f"{number}of{count}") for number in range(1, count + 1)]
    contents = [b"" if path is None else path.read_bytes() for path in pieces]
    data = b"".join(contents)
    if any(len(content) != PIECE for content in contents[:-1]) or not data.endswith(bytes(1024)):
        raise UserError(f"{folder}: a piece of {name} is missing or cut off")
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        files = [(member.name, tar.extractfile(member)) for member in tar if member.isfile()]
        for path, file in files:
            if Path(path).is_absolute() or ".." in Path(path).parts:
                raise UserError(f"{folder}: {name} holds {path}, which is outside the run")
            assert file is not None
            yield path, file.read()
