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

DAMAGED = (SafetensorError, OSError, LookupError, ValueError, TypeError)


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


def read(store: Folder, image: int) -> CanvasState | None:
    """The snapshot of an image; None, and a warning, where it is not whole."""
    try:
        with store.scratch() as scratch:
            path = scratch / "snapshot"
            path.write_bytes(store.read(_name(image)))
            with safe_open(path, framework="numpy") as file:
                arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # no mapping
                return arrays, json.loads(file.metadata()["numbers"])
    except DAMAGED as error:
        _tell(image, error)
    return None


def resume(image: int, snapshot: CanvasState | None, begin: Callable[..., ImageJob]) -> ImageJob:
    """An image at its snapshot, if there is one that is whole; else at its beginning."""
    if snapshot is not None:
        try:
            return begin(snapshot=snapshot)
        except DAMAGED as error:
            _tell(image, error)
    return begin()


def _tell(image: int, error: Exception) -> None:
    warn(f"{_name(image)} is not whole ({error}); the image is begun anew")


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
