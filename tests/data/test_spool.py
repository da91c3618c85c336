"""What an interrupted run has cut is read again, but for what may not be whole."""

from contextlib import suppress
from pathlib import Path

import pytest

from diffgen.data.cut import EncodedPatch
from diffgen.data.formats.base import LeftOut
from diffgen.data.spool import NAME, Made, Spool


def patch(number: int) -> EncodedPatch:
    return EncodedPatch("image", "train", {"x": number, "shares": [0.5, 0.5]}, bytes([number]) * 50, None)


def stopped(folder: Path, made: list[tuple[int, Made]], of: str = "run") -> list[tuple[int, object]]:
    """A run that reads what is there, makes more, and is stopped; what it read."""
    found: list[tuple[int, object]] = []
    with suppress(KeyboardInterrupt), Spool(folder, of) as spool:
        found = [(job, str(one) if isinstance(one, LeftOut) else one) for job, one in spool.read()]
        for job, one in made:
            spool.add(job, one)
        raise KeyboardInterrupt
    return found


@pytest.mark.parametrize("per_job", [1, 3, 50, 100])
def test_whole_jobs_come_back_however_often_it_is_stopped(tmp_path: Path, per_job: int) -> None:
    jobs: list[tuple[int, Made]] = [
        (job, patch(10 * job + n % 10)) for job in range(6) for n in range(per_job)
    ]
    assert stopped(tmp_path, jobs[: 2 * per_job + 1]) == []
    assert stopped(tmp_path, jobs[2 * per_job : 4 * per_job]) == jobs[: 2 * per_job]
    assert stopped(tmp_path, jobs[3 * per_job :]) == jobs[: 3 * per_job]
    assert stopped(tmp_path, []) == jobs[: 5 * per_job]


def test_a_reason_is_kept_and_a_half_written_end_is_not(tmp_path: Path) -> None:
    stopped(tmp_path, [(0, LeftOut("damaged")), (1, patch(1)), (2, patch(2))])
    with (tmp_path / NAME).open("ab") as file:
        file.write(b"\xff\xff\xff\xff\x10")
    assert stopped(tmp_path, []) == [(0, "damaged"), (1, patch(1))]


def test_of_another_run_nothing_is_read(tmp_path: Path) -> None:
    stopped(tmp_path, [(0, patch(0)), (1, patch(1))])
    assert stopped(tmp_path, [], of="other") == []


def test_a_complete_run_leaves_none(tmp_path: Path) -> None:
    with Spool(tmp_path, "run") as spool:
        spool.add(0, patch(0))
        spool.flush()
    assert not (tmp_path / NAME).exists()
