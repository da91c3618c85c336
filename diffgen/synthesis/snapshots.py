"""Snapshots of large images in the works: `snapshots/000000012.safetensors` in the output folder.

They are taken between two steps and hold the solver's history, so that an image that is resumed
has the bytes of one that was never stopped. The folder belongs to one run, and so do they.
"""

import json
from collections.abc import Callable

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from diffgen.errors import warn
from diffgen.sampling.canvas import CanvasState
from diffgen.storage import Folder
from diffgen.synthesis.image_job import ImageJob
from diffgen.synthesis.run_record import SNAPSHOT, SNAPSHOTS


def _name(image: int) -> str:
    return f"{SNAPSHOTS}/{image:09d}{SNAPSHOT}"


def pack(job: ImageJob) -> bytes:
    """A snapshot of an image between two steps."""
    arrays, numbers = job.state()
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return to_bytes(whole, {"numbers": json.dumps(numbers)})


def save(store: Folder, image: int, snapshot: bytes) -> None:
    """Write a snapshot over the last one; `OSError` where the store does not take it."""
    store.write(_name(image), snapshot)


def resume(store: Folder, image: int, begin: Callable[..., ImageJob]) -> ImageJob:
    """An image at its snapshot, if that is whole; else at its beginning."""
    name = _name(image)
    try:
        return begin(snapshot=_read(store, name))
    except (SafetensorError, OSError, LookupError, ValueError, TypeError) as error:
        warn(f"{name} is not whole ({error}); the image is begun anew")
    return begin()


def _read(store: Folder, name: str) -> CanvasState:
    with store.scratch() as scratch:
        path = scratch / "snapshot"
        path.write_bytes(store.read(name))
        with safe_open(path, framework="numpy") as file:
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # no mapping
            return arrays, json.loads(file.metadata()["numbers"])


def saved(store: Folder) -> set[int]:
    """Images of which there is a snapshot, by one look into the folder."""
    return {
        int(stem)
        for name in store.files(SNAPSHOTS, SNAPSHOT)
        if (stem := name.removesuffix(SNAPSHOT)).isdigit()
    }


def forget(store: Folder, image: int) -> None:
    store.delete(_name(image))


def clear(store: Folder) -> None:
    """Remove what is left when all is done."""
    for name in store.files(SNAPSHOTS, SNAPSHOT):
        store.delete(f"{SNAPSHOTS}/{name}")
    if store.local is not None and (store.local / SNAPSHOTS).is_dir():
        (store.local / SNAPSHOTS).rmdir()
