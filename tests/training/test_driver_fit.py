"""What is tried again, and how often. The real thing is in tests/faults."""

import pytest

from diffgen.training.driver_fit import fit_with_retries


def test_failures_count_only_where_nothing_was_saved_between() -> None:
    from ray.train import TrainingFailedError

    saved, results = [0], iter([3, 7, 7])  # checkpoints there are when an attempt fails
    tried = []

    def attempt() -> str:
        tried.append(saved[0])
        saved[0] = next(results)
        raise TrainingFailedError

    with pytest.raises(TrainingFailedError):
        fit_with_retries(attempt, lambda: saved[0])
    assert tried == [0, 3, 7], "the third has made no checkpoint"
    assert fit_with_retries(lambda: "done", lambda: 0) == "done"
    with pytest.raises(KeyError):
        fit_with_retries(lambda: {}["a mistake of ours"], lambda: 0)
