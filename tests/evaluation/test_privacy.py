"""The verdict on privacy, by `diffgen evaluate`: copies are not cleared, honest pictures not accused."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffgen.evaluation import backbones
from diffgen.evaluation.backbones import Backbone
from tests.evaluation.crimes import NUCLEI, copied, features, jpeg, textures
from tests.evaluation.test_evaluate import folder, run

SIDE, SHIFT = 96, 9  # px, as 12 of 128
WIDE, FRESH, HELD = textures(60, 0, SIDE + SHIFT), textures(60, 1, SIDE), textures(60, 2, SIDE)
REAL = WIDE[:, :SIDE, :SIDE]
SHIFTED = np.stack([jpeg(np.ascontiguousarray(one[SHIFT:, SHIFT:]), 70) for one in WIDE])
Judge = Callable[..., dict[str, Any]]


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Judge:
    """What `metrics.json` says of privacy; the features are those of no network, and take no time."""

    def network(x: torch.Tensor) -> tuple[torch.Tensor, None]:
        return torch.from_numpy(features(x.permute(0, 2, 3, 1).numpy())), None

    monkeypatch.setattr(backbones, "load", lambda *_: Backbone("quantiles", "0", "none", network))

    def judged(real: np.ndarray, synthetic: np.ndarray, held_out: np.ndarray | None, *more: str) -> Any:
        places = [str(folder(tmp_path / "real", real)), str(folder(tmp_path / "synthetic", synthetic))]
        if held_out is not None:
            places += ["--held-out", str(folder(tmp_path / "held", held_out))]
        quick = ("--set", "evaluation.bootstrap=100", "--set", "evaluation.parts=[privacy]")
        status, said = run(*places, "--out", str(tmp_path / "report"), *quick, *more)
        assert status == 0, said
        return json.loads((tmp_path / "report" / "metrics.json").read_text())["privacy"]

    return judged


@pytest.mark.parametrize("held_out", [HELD, None], ids=["held-out", "none"])
@pytest.mark.parametrize("crime", ["exact", "turned", "jpeg", "shifted"])
def test_copies_are_poor(judge: Judge, crime: str, held_out: np.ndarray | None) -> None:
    copies = SHIFTED if crime == "shifted" else copied(REAL, crime)
    found = judge(REAL, np.concatenate([copies[:5], FRESH[:35]]), held_out)
    assert found["verdict"]["level"] == "poor"
    assert found["copies"]["same"][0] == pytest.approx(5 / 40)
    assert found["exact_copies"] == (5 if crime == "exact" else 0)


def test_a_shifted_copy_stands_first_beside_its_training_region(judge: Judge, tmp_path: Path) -> None:
    judge(REAL, np.concatenate([FRESH[:39], SHIFTED[7:8]]), HELD)
    page = (tmp_path / "report" / "report.html").read_text()
    pixels = page[page.index("Nearest by pixels") :]
    assert re.findall(r"(\d+)\.png · (shifted|NCC)", pixels)[0] == ("039", "shifted")


def test_exact_copies_too_small_for_patterns_are_poor(judge: Judge) -> None:
    found = judge(REAL, REAL[:30], HELD, "--set", "evaluation.side=24")
    assert found["verdict"]["level"] == "poor"
    assert found["copies"] is None


@pytest.mark.parametrize("inside", [60, 20])
def test_held_out_images_that_are_training_images_are_named(
    judge: Judge, tmp_path: Path, inside: int
) -> None:
    found = judge(REAL, FRESH, np.concatenate([REAL[:inside], HELD[inside:]]))
    assert found["verdict"]["level"] == "unknown"
    assert f"he held-out images are training images: {inside} of 60" in found["verdict"]["text"]
    assert found["held_out_in_training"]["regions"] == inside
    assert found["held_out_in_training"]["images"] == [f"{k:03d}.png" for k in range(inside)]
    assert "training images: " in (tmp_path / "report" / "report.html").read_text()


def test_held_out_images_that_are_turned_or_shifted_training_images_are_named(judge: Judge) -> None:
    found = judge(REAL, FRESH, np.concatenate([copied(REAL[:10], "turned"), SHIFTED[10:20], HELD[20:]]))
    assert found["verdict"]["level"] == "unknown"
    assert found["held_out_in_training"]["regions"] == 20


def test_copies_are_poor_whatever_is_held_out(judge: Judge) -> None:
    mixed = np.concatenate([copied(REAL[:12], "jpeg"), FRESH[12:]])
    found = judge(REAL, mixed, np.concatenate([REAL[20:38], HELD[18:]]))
    assert found["verdict"]["level"] == "poor"
    assert found["held_out_in_training"]["regions"] == 18


def test_honest_pictures_are_not_accused(judge: Judge) -> None:
    found = judge(REAL, FRESH, HELD)
    assert found["verdict"]["level"] in {"good", "fair"}
    assert found["copies"]["same"][0] == found["exact_copies"] == 0
    assert found["held_out_in_training"]["regions"] == 0


def test_honest_pictures_without_held_out_ones_are_not_known(judge: Judge) -> None:
    assert judge(REAL, FRESH, None)["verdict"]["level"] == "unknown"


def test_specks_on_glass_are_not_copies_of_one_another(judge: Judge) -> None:
    rng = np.random.default_rng(0)

    def glass(count: int) -> np.ndarray:
        pictures = np.full((count, SIDE, SIDE, 3), 255, np.uint8)
        for one, (y, x) in zip(pictures, rng.integers(0, SIDE - 8, (count, 2)), strict=True):
            one[y : y + 8, x : x + 8] = NUCLEI
        return pictures

    found = judge(np.concatenate([REAL, glass(10)]), np.concatenate([FRESH[:40], glass(10)]), HELD)
    assert found["copies"]["tissue"] == 0
    assert found["verdict"]["level"] in {"good", "fair"}


def test_where_features_cannot_tell_the_verdict_says_so(judge: Judge) -> None:
    """Pictures under much noise are far from all others, copies or not."""
    noisy = FRESH + np.random.default_rng(0).normal(0, 60, FRESH.shape)
    found = judge(REAL, noisy.clip(0, 255).astype(np.uint8), HELD)
    assert found["authenticity"][1] > found["authenticity_held_out"][2]
    assert found["copies"]["same"][0] == 0
    assert found["verdict"]["level"] in {"fair", "unknown"}
    assert "eatures cannot tell" in found["verdict"]["text"]


def test_copies_of_an_image_that_is_twice_in_the_training_set_are_not_authentic(
    judge: Judge, tmp_path: Path
) -> None:
    copies = np.stack([jpeg(one, 98) for one in REAL[:12]])
    found = judge(np.concatenate([REAL, REAL[:12]]), np.concatenate([FRESH[:28], copies]), HELD)
    assert found["training_regions"] == 60
    assert found["authenticity"][0] <= 28 / 40
    page = (tmp_path / "report" / "report.html").read_text()
    first = re.findall(r"(\d+)\.png · [\d.]+, ratio", page)
    assert sorted(set(first)) == [f"{k:03d}" for k in range(28, 40)]


def test_pictures_are_opened_whatever_their_number_of_pixels(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert judge(REAL[:30], FRESH[:30], None)["verdict"]["level"] == "unknown"
