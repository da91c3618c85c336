"""Facts → rows, by tables."""

from typing import Any

import pytest

from diffgen.doctor import judge
from diffgen.doctor.judge import GIB, Row

FINE: dict[str, Any] = {
    "host": "a", "python": "3.11.7", "diffgen": "0.1.0", "torch": "2.13.0", "ray": "2.60.0", "cuda": "13.0",
    "gpus": [["H200", 139 * GIB]] * 2, "gpu_fault": None, "gpu_devices": 2, "cpus": 8,
    "memory": 64 * GIB, "memory_free": 60 * GIB, "shm": 32 * GIB, "shm_free": 32 * GIB,
    "temporary": "/tmp/ray", "temporary_disk": 100 * GIB, "temporary_free": 50 * GIB, "socket": "/tmp/ray/s",
}  # fmt: skip


def test_a_good_machine_has_nothing_to_remedy() -> None:
    rows = judge.machine(FINE)
    assert {row.verdict for row in rows} == {"ok"}
    assert not any(row.remedy for row in rows)
    assert rows[0].found == "2 x H200 139 GiB (torch 2.13.0, CUDA 13.0)"


@pytest.mark.parametrize(
    ("facts", "what", "verdict", "said"),
    [
        ({"gpus": [], "gpu_devices": 0, "cuda": None}, "GPUs", "warn", "none (torch 2.13.0, built for CPUs)"),
        ({"gpus": [], "gpu_devices": 1}, "GPUs", "wrong", "1 by the driver, none by torch"),
        ({"gpu_fault": "no kernel image"}, "GPUs", "wrong", "no kernel image"),
        ({"memory_free": 3 * GIB}, "memory", "warn", "3.0 GiB free of 64.0 GiB"),
        ({"memory_free": GIB}, "memory", "wrong", "1.0 GiB free"),
        ({"memory": None, "memory_free": None}, "memory", "ok", "not known"),
        ({"shm_free": GIB // 16}, "/dev/shm", "warn", "0.1 GiB free of 32.0 GiB"),
        ({"shm": None, "shm_free": None}, "/dev/shm", "warn", "not there"),
        ({"temporary_free": 4 * GIB}, "temporary folder", "warn", "4.0 GiB free"),
        ({"temporary_free": GIB // 2}, "temporary folder", "wrong", "/tmp/ray: 0.5 GiB free"),
        ({"temporary_disk": None, "temporary_free": None}, "temporary folder", "wrong", "cannot be read"),
        ({"socket": "s" * 107}, "socket path", "ok", "107 of 107 bytes"),
        ({"socket": "é" * 54}, "socket path", "wrong", "108 of 107 bytes"),
    ],
)
def test_each_want_is_named_with_its_remedy(
    facts: dict[str, Any], what: str, verdict: str, said: str
) -> None:
    rows = judge.machine(FINE | facts)
    row = next(row for row in rows if row.what == what)
    assert row.verdict == verdict
    assert said in row.found
    assert bool(row.remedy) == (verdict != "ok")
    assert all(other.verdict == "ok" for other in rows if other is not row)
    assert judge.can_run(rows) == (verdict != "wrong")


@pytest.mark.parametrize(
    ("theirs", "wrong", "said"),
    [
        ({}, set(), ""),
        ({"python": "3.11.9"}, set(), ""),
        ({"python": "3.12.1"}, {"python"}, "3.11.7 here, 3.12.1 on b"),
        ({"diffgen": None}, {"diffgen"}, "0.1.0 here, none on b"),
        ({"torch": "2.9.0", "ray": "2.55.0"}, {"torch", "ray"}, "2.9.0 on b"),
    ],
)
def test_versions_are_those_of_the_driver(theirs: dict[str, Any], wrong: set[str], said: str) -> None:
    rows = judge.versions([FINE, FINE | {"host": "b"} | theirs], FINE)
    assert {row.what for row in rows if row.verdict == "wrong"} == wrong
    assert said in "; ".join(row.found for row in rows)


def test_a_driver_without_ray_is_wrong() -> None:
    here = FINE | {"ray": None}
    assert judge.versions([here], here)[-1].verdict == "wrong"


@pytest.mark.parametrize(
    ("skews", "signs", "verdict", "said"),
    [
        ({"a": (0.1, 0.2), "b": (-4.0, 0.5)}, True, "ok", "within 3.5 s"),
        ({"a": (0.1, 0.2), "b": (8.0, 4.0)}, True, "ok", "within 4.0 s"),  # it may be 4 s alone
        ({"a": (0.0, 0.1), "b": (-60.0, 1.0)}, True, "warn", "b is 60 s behind"),
        ({"b": (3600.0, 1.0)}, False, "warn", "b is 3600 s ahead"),
        ({"b": (3600.0, 1.0)}, True, "wrong", "S3 refuses"),
    ],
)
def test_clocks(skews: dict[str, tuple[float, float]], signs: bool, verdict: str, said: str) -> None:
    (row,) = judge.clocks(skews, signs)
    assert row.verdict == verdict
    assert said in row.found


def test_without_nodes_there_are_no_clocks() -> None:
    assert judge.clocks({}) == []


@pytest.mark.parametrize(
    ("place", "seconds", "free", "fault", "verdict", "said"),
    [
        ("/out", 0.01, 9 * GIB, None, "ok", "removed in 10 ms, 9.0 GiB free"),
        ("/out", 0.01, GIB // 2, None, "wrong", "0.5 GiB free"),
        ("s3://b", 2.0, None, None, "warn", "2000 ms"),
        ("s3://b", None, None, "access denied", "wrong", "s3://b: access denied"),
    ],
)
def test_store(
    place: str, seconds: float | None, free: int | None, fault: str | None, verdict: str, said: str
) -> None:
    row = judge.store(place, seconds, free, fault)
    assert row.verdict == verdict
    assert said in row.found
    assert bool(row.remedy) == (verdict != "ok")


def test_rows_that_say_the_same_are_one_and_keep_their_order() -> None:
    few, many = Row("CPUs", "2"), Row("CPUs", "8")
    names = [f"n{k}" for k in range(5)]
    rows = judge.merged({name: [Row("GPUs", "none"), many] for name in names} | {"z": [few]})
    assert [(row.what, row.found, row.where) for row in rows] == [
        ("GPUs", "none", "n0, n1, n2 and 2 more"), ("CPUs", "8", "n0, n1, n2 and 2 more"), ("CPUs", "2", "z"),
    ]  # fmt: skip
