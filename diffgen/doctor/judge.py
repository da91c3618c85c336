"""From facts to rows: what was found, whether a run can do with it, and the remedy. Pure functions."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

Verdict = Literal["ok", "warn", "wrong"]
Facts = Mapping[str, Any]
"""What `facts.collect` gives."""
GIB = 2**30
LONGEST_SOCKET = 107
"""Bytes of a socket's path on Linux (`sun_path` without its end)."""
LEAST_MEMORY, SMALL_MEMORY = 2 * GIB, 4 * GIB
LEAST_DISK = GIB
FULL = 0.95
"""Share of a disk from which Ray writes no more to it (`local_fs_capacity_threshold`)."""
SHM_SHARE = 0.3
"""Of the memory that Ray takes for its objects; where /dev/shm has less, they go to the disk."""
SKEWED_S, REFUSED_S = 5.0, 900.0
"""Clocks further apart make times in logs misleading; S3 refuses requests of one a quarter hour off."""
SLOW_STORE_S = 1.0


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    what: str
    found: str
    verdict: Verdict = "ok"
    remedy: str = ""
    where: str = ""
    """Hosts; empty for this machine."""


def machine(facts: Facts) -> list[Row]:
    """Of one machine."""
    rows = [gpus(facts), Row("CPUs", f"{facts['cpus']}"), memory(facts), shm(facts), *temporary(facts)]
    return [*rows, socket(facts["socket"])]


def gpus(facts: Facts) -> Row:
    """What torch can compute on."""
    built = f"torch {facts['torch']}, " + (f"CUDA {facts['cuda']}" if facts["cuda"] else "built for CPUs")
    if facts["gpu_fault"]:
        remedy = "install the torch that fits GPU and driver (pytorch.org), or run with --cpu"
        return Row("GPUs", f"{facts['gpu_fault']} ({built})", "wrong", remedy)
    if facts["gpus"]:
        names = [f"{name} {size / GIB:.0f} GiB" for name, size in facts["gpus"]]
        each = [f"{names.count(name)} x {name}" for name in dict.fromkeys(names)]
        return Row("GPUs", f"{', '.join(each)} ({built})")
    if facts["gpu_devices"]:
        seen = f"{facts['gpu_devices']} by the driver, none by torch ({built})"
        remedy = "install a torch with CUDA (pytorch.org); is CUDA_VISIBLE_DEVICES empty?"
        return Row("GPUs", seen, "wrong", remedy)
    return Row("GPUs", f"none ({built})", "warn", "works on CPUs, slowly: for many images take GPUs")


def memory(facts: Facts) -> Row:
    total, free = facts["memory"], facts["memory_free"]
    if total is None:
        return Row("memory", "not known")
    verdict: Verdict = "wrong" if free < LEAST_MEMORY else "warn" if free < SMALL_MEMORY else "ok"
    remedy = "" if verdict == "ok" else "end other programs, or lower sampling.micro_batch and --samplers"
    return Row("memory", f"{_gib(free)} free of {_gib(total)}", verdict, remedy)


def shm(facts: Facts) -> Row:
    """Where Ray keeps its objects."""
    if facts["shm"] is None:
        return Row("/dev/shm", "not there", "warn", "Ray keeps its objects on the disk, slowly; or --inline")
    found = f"{_gib(facts['shm_free'])} free of {_gib(facts['shm'])}"
    if facts["memory"] and facts["shm_free"] < SHM_SHARE * facts["memory"]:
        wanted = f"{_gib(SHM_SHARE * facts['memory'])} (30 % of the memory)"
        remedy = f"Ray takes the disk beyond it: docker run --shm-size, or an emptyDir in memory, of {wanted}"
        return Row("/dev/shm", found, "warn", remedy)
    return Row("/dev/shm", found)


def temporary(facts: Facts) -> list[Row]:
    """The disk where Ray's sessions are."""
    total, free = facts["temporary_disk"], facts["temporary_free"]
    what = "temporary folder"
    if not total:
        return [Row(what, f"{facts['temporary']}: cannot be read", "wrong", "set RAY_TMPDIR to another one")]
    found = f"{facts['temporary']}: {_gib(free)} free of {_gib(total)}"
    if free < LEAST_DISK:
        return [Row(what, found, "wrong", "make room there, or set RAY_TMPDIR to a larger disk")]
    if free < (1 - FULL) * total:
        return [Row(what, found, "warn", "over 95 % full, Ray spills no more: make room, or set RAY_TMPDIR")]
    return [Row(what, found)]


def socket(path: str) -> Row:
    length = len(path.encode())
    if length > LONGEST_SOCKET:
        remedy = "set RAY_TMPDIR (or ray start --temp-dir) to a short folder, such as /tmp"
        return Row("socket path", f"{length} of {LONGEST_SOCKET} bytes: {path}", "wrong", remedy)
    return Row("socket path", f"{length} of {LONGEST_SOCKET} bytes")


def versions(nodes: Sequence[Facts], here: Facts) -> list[Row]:
    """Whether all nodes have what the driver has; of Python the first two numbers count."""
    rows = []
    for name in ("diffgen", "python", "torch", "ray"):
        by_version = defaultdict[str | None, list[str]](list)
        for node in nodes:
            by_version[node[name]].append(node["host"])
        mine = here[name]
        others = {
            theirs: hosts
            for theirs, hosts in by_version.items()
            if theirs != mine and not (name == "python" and theirs and _minor(theirs) == _minor(mine))
        }
        if mine is None:
            rows.append(
                Row(name, "not installed", "wrong", f"pip install {name}, or --inline for Ray's want")
            )
        elif others:
            told = [f"{theirs or 'none'} on {_few(hosts)}" for theirs, hosts in others.items()]
            remedy = f"install {name} {mine} on all nodes (jobs/runtime-env.yaml, jobs/Dockerfile)"
            rows.append(Row(name, f"{mine} here, {', '.join(told)}", "wrong", remedy))
        else:
            rows.append(Row(name, f"{mine}" + (f" on all {len(nodes)} nodes" if len(nodes) > 1 else "")))
    return rows


def clocks(skews: Mapping[str, tuple[float, float]], store_signs: bool = False) -> list[Row]:
    """Of nodes by host: (seconds ahead of this machine, how far that may be wrong)."""
    if not skews:
        return []
    sure = {host: max(0.0, abs(ahead) - doubt) for host, (ahead, doubt) in skews.items()}
    worst = max(sure, key=lambda host: sure[host])
    if sure[worst] <= SKEWED_S:
        return [Row("clocks", f"within {max(sure[worst], *(d for _, d in skews.values())):.1f} s")]
    ahead = skews[worst][0]
    found = f"{worst} is {abs(ahead):.0f} s {'ahead' if ahead > 0 else 'behind'}"
    verdict: Verdict = "wrong" if store_signs and sure[worst] > REFUSED_S else "warn"
    refused = ": S3 refuses its requests" if verdict == "wrong" else ""
    return [Row("clocks", found + refused, verdict, "set it by NTP (timedatectl set-ntp true)", worst)]


def store(place: str, seconds: float | None, free: int | None, fault: str | None) -> Row:
    """The output folder: `seconds` that a probe took, `free` bytes of a local one, or what went wrong."""
    if fault or seconds is None:
        remedy = "another --out"
        if "://" in place:
            remedy = "mend address, keys or rights (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, …), or another --out"
        return Row("store", f"{place}: {fault}", "wrong", remedy)
    found = f"{place}: probe written and removed in {1000 * seconds:.0f} ms"
    if free is not None:
        found += f", {_gib(free)} free"
        if free < LEAST_DISK:
            return Row("store", found, "wrong", "make room there, or another --out")
    if seconds > SLOW_STORE_S:
        return Row("store", found, "warn", "a store nearer to the cluster")
    return Row("store", found)


def merged(by_host: Mapping[str, Sequence[Row]]) -> list[Row]:
    """Rows of several machines, those that say the same as one, in the order of the first machine's."""
    hosts = defaultdict[Row, list[str]](list)
    for host, rows in by_host.items():
        for row in rows:
            hosts[row].append(host)
    order = list(dict.fromkeys(row.what for row in hosts))
    ordered = sorted(hosts.items(), key=lambda item: order.index(item[0].what))
    return [replace(row, where=_few(those)) for row, those in ordered]


def can_run(rows: Sequence[Row]) -> bool:
    return all(row.verdict != "wrong" for row in rows)


def _few(hosts: Sequence[str]) -> str:
    return ", ".join(hosts[:3]) + (f" and {len(hosts) - 3} more" if len(hosts) > 3 else "")


def _minor(text: str | None) -> list[str]:
    return (text or "").split(".")[:2]


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"
