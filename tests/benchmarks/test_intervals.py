"""What simulated intervals are held against is the truth, and the table comes out."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import intervals
from benchmarks.intervals import Normal, Pool, normals, true_frechet, true_kid
from diffgen.evaluation.bootstrap import Estimate
from diffgen.evaluation.divergences import frechet, kid


def test_the_truth_is_that_of_many_samples() -> None:
    rng, kinds = np.random.default_rng(0), normals()
    a, b = (kinds[name].draw(3000, 3000, rng).features for name in ("same", "other"))
    ones = [np.ones((1, 3000))] * 2
    found = kid(a, b, (np.arange(3000), np.arange(3000) + 3000), ones)[0]
    assert true_kid(kinds["same"], kinds["other"]) == pytest.approx(found, rel=0.3)
    assert true_kid(kinds["same"], kinds["same"]) == 0
    basis = np.eye(intervals.DIMENSIONS)[:, :3]
    found = frechet(a @ basis, b @ basis, ones)[0]
    assert true_frechet(kinds["same"], kinds["other"], basis) == pytest.approx(found, rel=0.15)


def test_samples_of_a_source_are_alike() -> None:
    one = Normal(np.zeros(intervals.DIMENSIONS), np.ones(intervals.DIMENSIONS))
    drawn = one.draw(400, 20, np.random.default_rng(0))
    means = np.stack([drawn.features[drawn.sources == k].mean(axis=0) for k in range(20)])
    assert np.bincount(drawn.sources).tolist() == [20] * 20
    assert means.var() == pytest.approx(intervals.OF_SOURCE + 0.8 / 20, rel=0.1)
    pool = Pool(drawn.features, drawn.sources).draw(30, 10, np.random.default_rng(0))
    assert pool.features.shape == (30, intervals.DIMENSIONS)
    assert np.bincount(pool.sources).tolist() == [3] * 10


def test_intervals_that_hold_are_counted() -> None:
    found = intervals.held([Estimate(1, 0, 2), Estimate(3, 2.5, 4)], np.array([0.5, 0.5]))
    assert found == {"truth": 0.5, "mean": 2, "held": 0.5, "half_width": 0.875, "runs": 2}


def test_the_table_as_json(tmp_path: Path) -> None:
    rng, path = np.random.default_rng(0), tmp_path / "real.npy"
    np.save(path, rng.standard_normal((90, 8)))
    np.save(path.with_suffix(".sources.npy"), np.arange(90) // 2)
    words = ["--quick", "--runs", "2", "--features", str(path), "--json", str(tmp_path / "out.json")]
    intervals.main(words)
    found = json.loads((tmp_path / "out.json").read_text())
    assert [len(found[name]) for name in ("verdicts", "coverage", "pool")] == [1, 4, 2]
    row = found["coverage"][0]["figures"]
    assert {"precision", "kid", "frechet", "authenticity", "near-duplicates"} <= row.keys()
    assert all(0 <= one["held"] <= 1 for one in row.values())
    assert sum(found["verdicts"][0]["levels"]["noise"].values()) == 2
