import threading
import time

import pytest

from diffgen.training.read_ahead import read_ahead


@pytest.mark.parametrize("readers", [0, 1, 3])
@pytest.mark.parametrize("start", [0, 4])
def test_steps_come_in_order_whoever_is_faster(readers: int, start: int) -> None:
    def read(step: int) -> int:
        time.sleep(0.002 * (step % 3))
        return step

    with read_ahead(read, start, 12, readers) as steps:
        assert list(steps) == list(range(start, 12))


def test_the_next_steps_are_read_meanwhile_and_no_more() -> None:
    begun: list[int] = []
    with read_ahead(lambda step: begun.append(step) or step, 0, 100, 2) as steps:  # type: ignore[func-returns-value]
        next(steps)
        deadline = time.monotonic() + 5
        while len(begun) < 3 and time.monotonic() < deadline:
            time.sleep(0.001)
        assert sorted(begun) == [0, 1, 2]


def test_an_error_comes_where_its_step_does_and_threads_end() -> None:
    def read(step: int) -> int:
        if step == 2:
            raise ValueError("step 2")
        return step

    with read_ahead(read, 0, 9, 2) as steps:
        assert [next(steps), next(steps)] == [0, 1]
        with pytest.raises(ValueError, match="step 2"):
            next(steps)
    assert not [t for t in threading.enumerate() if t.name.startswith("reader")]
