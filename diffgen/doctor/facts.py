"""What a machine has, as plain data. No judgement, and nothing of diffgen: this file travels to nodes whole.

A node may have another diffgen, or none, so its functions go there by value: standard library only, and all
that may be absent is imported where it is asked for.
"""

import os
import platform
import shutil
import socket
import tempfile
import time
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("diffgen", "torch", "ray")


def collect(gpus_of_ray: float = 0.0) -> dict[str, Any]:
    """Facts of this machine, seen from this process; bytes, and None for what cannot be found out.

    `gpus_of_ray`: GPUs that Ray says the node has: of a task that asked for none Ray hides them.
    """
    if gpus_of_ray and not os.environ.get("CUDA_VISIBLE_DEVICES", "-"):
        del os.environ["CUDA_VISIBLE_DEVICES"]
    folder = temporary_folder()
    disk, shm = usage(folder), usage("/dev/shm")
    total, free = _memory()
    return {
        "host": socket.gethostname(),
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        **_gpus(),
        "cpus": _cpus(),
        "memory": total,
        "memory_free": free,
        "shm": shm and shm[0],
        "shm_free": shm and shm[1],
        "temporary": folder,
        "temporary_disk": disk and disk[0],
        "temporary_free": disk and disk[1],
        "socket": socket_path(folder, datetime.now(), os.getpid()),
    }


def clock() -> float:
    """s since 1970."""
    return time.time()


def temporary_folder() -> str:
    """Where Ray keeps sessions, sockets and what it spills."""
    return str(Path(os.environ.get("RAY_TMPDIR") or _tmp()) / "ray")


def socket_path(folder: str, now: datetime, pid: int) -> str:
    """Of the longest socket of a session that would be started now."""
    return str(Path(folder) / f"session_{now:%Y-%m-%d_%H-%M-%S_%f}_{pid}" / "sockets" / "plasma_store")


def _tmp() -> str:
    return "/tmp" if Path("/tmp").is_dir() else tempfile.gettempdir()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _gpus() -> dict[str, Any]:
    """GPUs that torch finds and can compute on, and those that the driver shows."""
    found: dict[str, Any] = {"gpus": [], "cuda": None, "gpu_fault": None}
    found["gpu_devices"] = len([*Path("/dev").glob("nvidia[0-9]*")])
    try:
        import torch

        found["cuda"] = torch.version.cuda or getattr(torch.version, "hip", None)
        for number in range(torch.cuda.device_count()):
            of = torch.cuda.get_device_properties(number)
            found["gpus"].append([of.name, of.total_memory])
            torch.ones(1, device=f"cuda:{number}").add_(1).item()  # what was built for other GPUs fails here
    except ImportError as error:
        found["gpu_fault"] = f"torch cannot be imported: {error}"
    except Exception as error:  # the driver's many words
        found["gpu_fault"] = " ".join(str(error).split())[:200]
    return found


def _cpus() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> tuple[int | None, int | None]:
    """Of the machine or, where that is less, of the container; all and free."""
    total = free = None
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        total, free = (int(lines[key].split()[0]) * 1024 for key in ("MemTotal", "MemAvailable"))
        limit = _number("/sys/fs/cgroup/memory.max")
        if limit is not None and limit < total:
            total, free = limit, min(free, max(0, limit - (_number("/sys/fs/cgroup/memory.current") or 0)))
    except (OSError, KeyError, ValueError):
        pass
    return total, free


def _number(path: str) -> int | None:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):  # "max"
        return None


def usage(folder: str) -> tuple[int, int] | None:
    """(all, free) bytes of the disk of a folder, or of the nearest one above it that is there."""
    place = Path(folder).absolute()
    try:
        while not place.exists():
            place = place.parent
        found = shutil.disk_usage(place)
        return found.total, found.free
    except OSError:
        return None
