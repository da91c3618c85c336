"""Verdicts come from intervals: few images tell nothing, noise is poor, and honest images never are."""

import json
from pathlib import Path

import numpy as np
import pytest

from diffgen.evaluation.bootstrap import Estimate
from diffgen.evaluation.label_maps import counted, errors
from diffgen.evaluation.page import Verdict
from diffgen.evaluation.precision_recall import Fidelity, evaluate_fidelity
from diffgen.evaluation.sections import fidelity, labels
from diffgen.evaluation.sections.cells import level_of, level_of_errors
from tests.evaluation.crimes import textures
from tests.evaluation.test_evaluate import folder, run

WIDTH = 16


def normal(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, WIDTH))


def figures(real: np.ndarray, drawn: np.ndarray) -> Fidelity:
    numbers = np.arange(len(real))
    return evaluate_fidelity(real, drawn, numbers, numbers + len(real), count=20)


def said(drawn: np.ndarray, outlying: int = 0) -> Verdict:
    count = len(drawn)
    real = normal(1, count)
    real[:outlying] *= 40
    return fidelity.verdict(figures(real, drawn), figures(real, normal(2, count)))


def test_few_honest_images_are_neither_fair_nor_poor() -> None:
    for count in (20, 50):
        verdict = said(normal(3, count))
        assert verdict.level == "unknown"
        assert verdict.text.startswith("Too few images to tell")
    assert said(normal(3, 400)).level == "good"


@pytest.mark.parametrize("count", [20, 100])
def test_noise_in_the_wide_balls_of_outlying_real_images_has_no_precision(count: int) -> None:
    real = normal(1, count)
    real[:2] *= 40
    noise = real[0] + normal(4, count)  # near none of the others
    assert figures(real, noise).precision.value == 1
    verdict = said(noise, outlying=2)
    assert verdict.level == "poor"
    assert "precision" not in verdict.number
    assert "says nothing here" in verdict.text


def test_one_image_over_and_over_has_no_precision() -> None:
    verdict = said(normal(3, 1).repeat(100, axis=0), outlying=2)
    assert verdict.level == "poor"
    assert "precision" not in verdict.number


def test_nothing_of_nothing_is_not_good() -> None:
    """Neither set is near the real one: what real images get is no measure."""
    numbers, real = np.arange(60), normal(1, 60)
    far, farther = (
        evaluate_fidelity(real, normal(k, 60) + 50 * k, numbers, numbers + 60, count=20) for k in (2, 3)
    )
    assert fidelity.verdict(farther, far).level == "unknown"


@pytest.mark.parametrize(
    ("ends", "level"),
    [((0.85, 1.1), "good"), ((0.6, 0.7), "fair"), ((0.1, 0.4), "poor"), ((0.7, 0.9), "unknown"),
     ((0.4, 0.6), "unknown"), ((0.0, np.inf), "unknown")],
)  # fmt: skip
def test_a_level_is_given_where_the_interval_lies_in_it(ends: tuple[float, float], level: str) -> None:
    one = Estimate(float(np.mean(ends)), *ends)
    assert level_of([one, Estimate(1.0, 0.9, 1.1)], 0.8, 0.5) == level
    if np.isfinite(ends[1]):
        error = Estimate(0.0, 1.2 - ends[1], 1.2 - ends[0])
        assert level_of_errors([(error, (0.4, 0.7))]) == level


def test_labels_of_few_sources_tell_nothing() -> None:
    rng = np.random.default_rng(0)
    maps = [np.where(rng.random((8, 8)) < rng.random(), 1, 2).astype(np.uint8) for _ in range(900)]
    real, alike, few = (counted(maps[start:stop], 3) for start, stop in ((0, 440), (440, 880), (880, 900)))
    other = counted([np.ones((8, 8), np.uint8) for _ in range(440)], 3)
    apart = (np.arange(440), 440 + np.arange(440))
    good, poor = (errors(real, one, apart) for one in (alike, other))
    unknown = errors(real, few, (apart[0], 440 + np.arange(20)))
    assert labels.verdict(good, good).level in ("good", "unknown")
    assert good.largest_share.high < 0.1
    assert labels.verdict(poor, good).level == "poor"
    assert labels.verdict(unknown, good).level == "unknown"
    assert "Too few label maps" in labels.verdict(unknown, good).text


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["noise", "constant", "one image"])
def test_a_folder_of_no_tissue_is_poor(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    real = textures(30, 0)
    drawn = {
        "noise": rng.integers(0, 256, (30, *real.shape[1:]), np.uint8),
        "constant": np.full((30, *real.shape[1:]), 200, np.uint8)
        + np.arange(30, dtype=np.uint8)[:, None, None, None],
        "one image": real[:1].repeat(30, axis=0),
    }[kind]
    outlying = rng.integers(0, 256, (2, *real.shape[1:]), np.uint8)
    folder(tmp_path / "real", real, masks=False, labels=None)
    folder(tmp_path / "held", np.concatenate([textures(28, 1), outlying]), masks=False, labels=None)
    folder(tmp_path / "drawn", drawn, masks=False, labels=None)
    words = ("--set", "evaluation.bootstrap=100", "--set", "evaluation.parts=[fidelity]")
    status, told = run(str(tmp_path / "real"), str(tmp_path / "drawn"), "--held-out", str(tmp_path / "held"),
                       "--out", str(tmp_path / "r"), *words)  # fmt: skip
    assert status == 0, told
    found = json.loads((tmp_path / "r" / "metrics.json").read_text())["fidelity"]
    assert found["verdict"]["level"] == "poor"
    assert "precision 1.00" not in found["verdict"]["number"]
