"""The one place that starts or joins Ray, quietly and in the same way for every command."""

import contextlib
import ctypes
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from diffgen.errors import CannotStartError, UserError, one_line

MALLOC_ENV = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**62), "MALLOC_ARENA_MAX": "1"}
"""glibc's settings under which memory that was freed stays with its process.

By its defaults activations go back to the system after each layer, and a network on a CPU waits half of its
time for new pages to be cleared. The price: a process never gives back what it took at its peak.
"""


POLL_S = 0.2
ANSWER_S = 5.0
NODE_S = 60.0
"""Time for a node to start a worker and answer."""
MALLOPT = ((-4, 0), (-1, -1), (-8, 1))
"""The same by `mallopt(3)`: M_MMAP_MAX, M_TRIM_THRESHOLD (−1: never), M_ARENA_MAX."""


def actor_runtime_env(gpu: bool) -> dict[str, Any] | None:
    """The runtime environment of an actor in which networks compute; on a GPU nothing is to be set."""
    return None if gpu else {"env_vars": MALLOC_ENV}


def networks_on(threads: int, gpu: bool, **more: Any) -> Any:
    """`ray.remote` of a task or an actor in which networks compute, on so many threads and, if so, a GPU."""
    import ray

    return ray.remote(num_cpus=threads, num_gpus=int(gpu), runtime_env=actor_runtime_env(gpu), **more)


def beside_driver() -> Any:
    """Where an actor goes that may not be lost with a node: to the driver's own."""
    import ray

    return _on_node(ray.get_runtime_context().get_node_id())


def _on_node(node: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)


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
            raise CannotStartError(
                f"no Ray cluster at {address or 'this machine'}: {one_line(error)}"
            ) from error
        except OSError as error:  # such as a path of a socket that is too long
            raise CannotStartError(f"Ray does not start here: {one_line(error)}") from error
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


def available(kind: str) -> int:
    """CPUs or GPUs that the cluster's nodes have, busy or not."""
    import ray

    return int(ray.cluster_resources().get(kind, 0))


def on_gpus(wanted: bool | None, inline: bool = False) -> bool:
    """Whether a command works on GPUs, by its setting `gpu`: where that is open, if there is one.

    On this machine by what torch finds; `UserError` if one is wanted and not there. A cluster with nothing to
    give is asked for a node, as an autoscaler adds none by itself, and waited for.
    """
    if inline or not _elsewhere():
        import torch

        found = wanted is not False and torch.cuda.is_available()
        if wanted and not found:
            raise CannotStartError(
                "gpu=true, and torch finds no GPU on this machine: --cpu, or RAY_ADDRESS=… of a cluster that "
                "has some"
            )
        return found
    connect()
    if wanted:
        need(0, 1, "workers with gpu=true")
    kinds = ["GPU"] * (wanted is not False) + ["CPU"] * (not wanted)
    if wanted is None and scales_to("GPU"):
        kinds = ["GPU"]
    if not any(available(kind) for kind in kinds):
        from ray.autoscaler.sdk import request_resources

        wanting = f"no node of the cluster has a {' or a '.join(kinds)} to give"
        print(f"warning: {wanting}: asking and waiting for one", file=sys.stderr)
        request_resources(bundles=[{kind: 1} for kind in kinds])
        while not any(available(kind) for kind in kinds):
            time.sleep(POLL_S)
        request_resources(bundles=[])  # from here on it is the work that holds its nodes
    return wanted is not False and available("GPU") > 0


def scales_to(kind: str) -> bool:
    """Whether the cluster's autoscaler says that it may add nodes with such a resource."""
    from ray._private.state import state  # what Ray's own libraries ask; there is no public way

    most: dict[str, Any] = getattr(state, "get_max_resources_from_cluster_config", dict)() or {}
    return float(most.get(kind) or 0) > 0


def running() -> str | None:
    """Address of the cluster that commands are told to join, or else of one that runs on this machine."""
    if address := os.environ.get("RAY_ADDRESS"):
        return address
    from ray._private.services import find_bootstrap_address  # where `ray start` left it; no public way

    with contextlib.suppress(OSError, RuntimeError):
        found: str | None = find_bootstrap_address(None)
        return found
    return None


def answers(address: str) -> bool:
    """Whether something listens at a cluster's `host:port`; True for an address of another form."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    if not (host and port.isdigit()):
        return True
    try:
        socket.create_connection((host, int(port)), ANSWER_S).close()
    except OSError:
        return False
    return True


def on_each_node(
    function: Callable[[float], dict[str, Any]], clock: Callable[[], float]
) -> list[dict[str, Any]]:
    """What `function`, of the GPUs that Ray sees, gives on every node of the cluster that was joined.

    Its module goes there by value: a node may have another diffgen, or none. Added to each: `node` (its
    address), `ahead` and `doubt` (s that its `clock` is ahead of ours, and how far that may be wrong);
    of a node that does not answer in `NODE_S` there is but `fault`, which says why.
    """
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[function.__module__])
    remote, asked = ray.remote(num_cpus=0, max_retries=0), []
    for node in ray.nodes():
        if node["Alive"]:
            here = _on_node(node["NodeID"])
            task = remote(function).options(scheduling_strategy=here)
            asked.append((node, here, task.remote(node["Resources"].get("GPU", 0.0))))
    until, found = time.monotonic() + NODE_S, []
    for node, here, reference in asked:
        of = {"node": node["NodeManagerAddress"]}
        try:
            of |= ray.get(reference, timeout=max(1.0, until - time.monotonic()))
            began = time.time()  # its worker is there by now, so the way is short
            theirs = ray.get(remote(clock).options(scheduling_strategy=here).remote(), timeout=NODE_S)
            took = time.time() - began
            of |= {
                "ahead": theirs - began - took / 2,
                "doubt": took / 2,
                "socket": node.get("ObjectStoreSocketName") or of.get("socket"),
            }
        except Exception as error:  # Ray raises many kinds, and so does what runs there
            of["fault"] = one_line(error)[-200:]
        found.append(of)
    return found


def check_versions(gpu: bool) -> None:
    """`UserError` that names the nodes with another diffgen or torch than this process: they compute other
    numbers, and a name that one of them lacks stops a run hours later. Also where a node cannot start a
    process, as on a full disk; one that does not answer is not asked.

    The processes that are asked are those that actors with `actor_runtime_env(gpu)` then get.
    """
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) < 2:
        return

    def versions() -> dict[str, str]:  # goes to the nodes by value: they may have no such module
        from importlib import import_module
        from importlib.metadata import PackageNotFoundError, version

        found = {}
        try:
            found["diffgen"] = str(import_module("diffgen").__version__)
            found["torch"] = version("torch").partition("+")[0]  # of any CUDA
        except (ImportError, AttributeError, PackageNotFoundError):
            pass
        return found

    asked, more = {}, {"num_cpus": 0, "max_retries": 0, "runtime_env": actor_runtime_env(gpu)}
    remote = ray.remote(**more)(versions)
    for node in nodes:
        here = _on_node(node["NodeID"])
        asked[remote.options(scheduling_strategy=here).remote()] = node
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=NODE_S)
    found = {}
    for reference in answered:
        node = asked[reference]
        name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        try:
            found[name] = ray.get(reference)
        except ray.exceptions.RuntimeEnvSetupError as error:  # such as no room on its disk
            why = str(error).strip().rpartition("\n")[2]
            raise UserError(
                f"{name} cannot start a process: {why}; mend that and start Ray there anew (it keeps to a "
                "failure for ten minutes), or take the node out of the cluster"
            ) from error
        except ray.exceptions.RayError:  # it is lost just now
            continue
    if told := unlike(versions(), found):
        raise UserError(
            f"{told}: install the same on all nodes (jobs/runtime-env.yaml, jobs/Dockerfile), or take the "
            "others out of the cluster; diffgen doctor says more"
        )


def unlike(mine: Mapping[str, str], theirs: Mapping[str, Mapping[str, str]]) -> str | None:
    """Which nodes (name → versions) have what other version than `mine`, in a line; None if none has."""
    told = []
    for package, version in mine.items():
        others = {node: of.get(package, "none") for node, of in theirs.items() if of.get(package) != version}
        if others:
            listed = ", ".join(f"{other} on {node}" for node, other in sorted(others.items()))
            told.append(f"{package} {version} here, {listed}")
    return "; ".join(told) or None


def _elsewhere() -> bool:
    import ray

    return bool(os.environ.get("RAY_ADDRESS")) or ray.is_initialized()
