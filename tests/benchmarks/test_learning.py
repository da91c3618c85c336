"""The proof that training learns says so where it does, and not where it does not."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import learning, tissue


def pictures(strength: float, seed: int, count: int = 24) -> tissue.Tissue:
    """Pictures whose nuclei are as dark as `strength` says; each is a source of its own."""
    rng = np.random.default_rng(seed)
    maps = (rng.random((count, 16, 16)) < 0.3).astype(np.uint8) + 1
    light = 220 + rng.normal(0, 8, (count, 16, 16, 3)) - 120 * strength * (maps == 2)[..., None]
    return tissue.Tissue(light.clip(0, 255).astype(np.uint8), maps, np.arange(count) + 100 * seed)


def features(images: np.ndarray) -> np.ndarray:
    flat = images.reshape(len(images), -1).astype(float) / 255
    return np.stack([flat.mean(1), flat.std(1), *np.quantile(flat, (0.05, 0.25, 0.5), axis=1)], axis=1)


def test_a_model_that_learns_is_seen_to_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "COMPONENTS", 3)
    monkeypatch.setattr(learning, "RESAMPLES", 100)
    real, training = pictures(1.0, 0), pictures(1.0, 1)
    judge = learning.Judge(real, training, 2, features)
    steps, along = [1, 2, 3, 4, 5, 6], []
    for step in steps:
        fake = pictures(step / 6, 0)
        along.append(judge(f"{step}", step, real.drawn(fake.pictures)))
    found = learning.trend(steps, np.stack([judged.kid for judged in along]))
    assert found["rank_correlation"].value < -0.9
    assert found["last_less_first"].high < 0
    shares = [judged.row.share.value for judged in along if judged.row.share]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1, abs=0.1)
    assert judge("training", None, training).row.kid.value < along[0].row.kid.value / 10


def test_a_model_that_stands_still_is_not() -> None:
    rng = np.random.default_rng(0)
    found = learning.trend([1, 2, 3, 4, 5, 6], 1 + 0.1 * rng.standard_normal((6, 201)))
    assert found["rank_correlation"].low < 0 < found["rank_correlation"].high
    assert found["last_less_first"].low < 0 < found["last_less_first"].high


def test_checkpoints_are_evenly_spread_with_both_ends(tmp_path: Path) -> None:
    for step in range(100, 1100, 100):
        (tmp_path / f"history/image/step-{step:07d}").mkdir(parents=True)
    assert [step for step, _ in learning.checkpoints(tmp_path, 4)] == [100, 400, 700, 1000]
    assert len(learning.checkpoints(tmp_path, 50)) == 10
    with pytest.raises(SystemExit, match="keep_history"):
        learning.checkpoints(tmp_path / "none", 4)
