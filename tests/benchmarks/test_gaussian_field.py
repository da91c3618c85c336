import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import gaussian_field as field


def test_the_denoiser_is_exact() -> None:
    """E[ε | z] of a Gaussian: its error is uncorrelated with z, and it is z itself where all is noise."""
    t, side = 400, 6
    alpha, rng = field.ALPHAS[t], np.random.default_rng(0)
    root = np.linalg.cholesky(field.covariance(side, side))
    clean, noise = rng.standard_normal((20000, side**2)) @ root.T, rng.standard_normal((20000, side**2))
    z = np.sqrt(alpha) * clean + np.sqrt(1 - alpha) * noise
    left = noise - z @ field.denoiser(side, side, t)
    assert np.abs(left.T @ z / len(z)).max() < 0.05
    assert np.allclose(field.denoiser(side, side, 999), np.eye(side**2), atol=0.01)


def test_exact_samples_have_the_field_s_moments() -> None:
    done = field.judge(field.Row("exact", "aligned", "", 0, covers=16, channels=64))
    assert done["variance"] == pytest.approx(1, abs=0.03)
    assert done["correlation_error"] < 0.04
    assert done["seam_grid"] == pytest.approx(1, abs=0.02)
    assert done["canvases"] == 1024


def test_a_tiled_field_has_seams_and_a_wide_one_has_not() -> None:
    few = {"covers": 2, "channels": 32}
    tiled = field.judge(field.Row("", "aligned", "dpmsolver++", 10, **few))
    wide = field.judge(field.Row("", "jittered", "dpmsolver++", 10, sides=field.WIDE, **few))
    assert tiled["seam"] > 3 > 1.3 > wide["seam"]
    assert tiled["forwards"] == 160


def test_rows_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys, "argv", ["it", "--only", "fast", "--quick", "--json", str(tmp_path / "rows.json")]
    )
    monkeypatch.setattr(
        field, "ROWS", [field.Row("fast", "jittered", "dpmsolver++", 3, covers=8, channels=2)]
    )
    field.main()
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    keys = "preset rule solver steps forwards variance seam correlation_error standard_error canvases"
    assert set(keys.split()) <= row.keys()
    assert row["canvases"] == 4
