"""The one place that starts or joins Ray, quietly and in the same way for every command."""

import contextlib
import ctypes
import logging
import os
from typing import Any

from diffgen.errors import UserError, one_line

MALLOC_ENV = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**62), "MALLOC_ARENA_MAX": "1"}
"""glibc's settings under which memory that was freed stays with its process.

By its defaults activations go back to the system after each layer, and a network on a CPU waits half of its
time for new pages to be cleared. The price: a process never gives back what it took at its peak.
"""


MALLOPT = ((-4, 0), (-1, -1), (-8, 1))
"""The same by `mallopt(3)`: M_MMAP_MAX, M_TRIM_THRESHOLD (−1: never), M_ARENA_MAX."""


def actor_runtime_env(gpu: bool) -> dict[str, Any] | None:
    """The runtime environment of an actor in which networks compute; on a GPU nothing is to be set."""
    return None if gpu else {"env_vars": MALLOC_ENV}


def apply_malloc_env() -> None:
    """`KEEP_FREED` in this very process, where its C library is glibc."""
    with contextlib.suppress(OSError, AttributeError):
        tune = ctypes.CDLL("libc.so.6").mallopt
        for parameter, value in MALLOPT:
            tune(parameter, value)


def connect(address: str | None = None, **options: Any) -> None:
    """Join the cluster at `address` or `RAY_ADDRESS`; where there is none, start one on this machine.

    Does nothing when the process has joined one already.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if not (address := address or os.environ.get("RAY_ADDRESS")):
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # a local cluster of one user writes no token file
    import ray
    import ray.data

    if not ray.is_initialized():
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        new = {} if address else {"include_dashboard": False, **options}
        try:
            ray.init(address=address or "local", **quiet, **new)
        except ConnectionError as error:
            raise UserError(f"no Ray cluster at {address}: {one_line(error)}") from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # the commands draw their own
    context.execution_options.preserve_order = True  # the same input gives the same shards
    context.print_on_execution_start = False
    logging.getLogger("ray").setLevel(logging.ERROR)


def need(cpus: float, gpus: float, setting: str) -> None:
    """`UserError` where this cluster can never give so much at once; a cluster elsewhere may still grow."""
    import ray

    have = ray.cluster_resources()
    grows = bool(os.environ.get("RAY_ADDRESS"))
    for kind, wanted in (("CPU", cpus), ("GPU", gpus)):
        if wanted > have.get(kind, 0) and not grows:
            raise UserError(f"{setting} need {wanted:g} {kind}s, this machine has {have.get(kind, 0):g}")


def need_gpu_here(gpu: bool, inline: bool = False) -> None:
    """`UserError` where training on GPUs is asked of this machine alone, and it has none: before any work."""
    if not gpu or (not inline and _elsewhere()):
        return
    import torch

    if not torch.cuda.is_available():
        raise UserError(
            "training.gpu=true, and torch finds no GPU on this machine: --set training.gpu=false, "
            "or RAY_ADDRESS=… of a cluster that has some"
        )


def _elsewhere() -> bool:
    import ray

    return bool(os.environ.get("RAY_ADDRESS")) or ray.is_initialized()
