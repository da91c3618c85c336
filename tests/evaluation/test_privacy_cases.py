"""The verdict on privacy where someone hides copies, or takes too little care: real tissue if it is there.

Each case is a run of `diffgen evaluate` on folders of 60 to 100 crops of 128 px.
"""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.crimes import CRIMES as HIDDEN
from benchmarks.crimes import cut, jpeg, noisy, stained
from tests.conftest import SHARED
from tests.evaluation.crimes import textures
from tests.evaluation.test_privacy import Judge, judge

__all__ = ["judge"]
pytestmark = pytest.mark.slow
SIDE, COUNT, HONEST = 128, 60, 100
PLACE = (40, 40, SIDE)
TISSUE = SHARED / "nuinsseg" / "images"


def fields(part: int, count: int = COUNT) -> np.ndarray:
    """(count, 256, 256, 3): of other pictures, of the same organs, for each of the parts 0, 1 and 2."""
    paths = sorted(TISSUE.glob("*.jpg"))[part::3][-count:] if TISSUE.exists() else []
    if len(paths) < count:
        return textures(count, part, 2 * SIDE)
    return np.stack([np.asarray(Image.open(path).convert("RGB"))[:256, :256] for path in paths])


@pytest.fixture(scope="module")
def wide() -> list[np.ndarray]:
    return [fields(part) for part in range(3)]


def regions(pictures: np.ndarray) -> np.ndarray:
    return np.stack([cut(picture, PLACE) for picture in pictures])


def hidden(pictures: np.ndarray, crime: str, strength: float) -> np.ndarray:
    return np.stack([HIDDEN[crime][0](picture, PLACE, strength) for picture in pictures])


@pytest.mark.parametrize(
    "crimes",
    [
        {
            "shift both ways, % of the side": 6,
            "part enlarged to full size, % of the area": 44,
            "stain, times": 1.4,
        },
        {
            "shift both ways, % of the side": 9,
            "mirrored and shifted, % of the side": 9,
            "shifted, enlarged 1.25, JPEG of quality": 70,
        },
    ],
    ids=["shift 6 %, part, stain", "shift 9 %, mirrored, all"],
)
def test_three_copies_hidden_in_each_of_three_ways_are_poor_and_named(
    judge: Judge, tmp_path: Path, wide: list[np.ndarray], crimes: dict[str, float]
) -> None:
    real, fresh, held = (regions(one) for one in wide)
    copies = [hidden(wide[0][3 * k : 3 * k + 3], *crime) for k, crime in enumerate(crimes.items())]
    found = judge(real, np.concatenate([fresh[9:], *copies]), held)
    assert found["verdict"]["level"] == "poor"
    named = {(one["image"], one["training_image"]) for one in found["found"]}
    assert named == {(f"{COUNT - 9 + k:03d}.png", f"{k:03d}.png") for k in range(9)}
    page = (tmp_path / "report" / "report.html").read_text()
    assert all(f"{name} (0, 0)" in page for pair in named for name in pair)


def test_copies_are_poor_with_held_out_images_that_are_training_images(
    judge: Judge, wide: list[np.ndarray]
) -> None:
    real, fresh, held = (regions(one) for one in wide)
    copies = hidden(wide[0][:12], "shift both ways, % of the side", 9)
    found = judge(real, np.concatenate([fresh[12:], copies]), np.concatenate([real[20:38], held[18:]]))
    assert found["verdict"]["level"] == "poor"
    assert found["held_out_in_training"]["regions"] == 18


def test_copies_of_held_out_images_are_poor(judge: Judge, wide: list[np.ndarray]) -> None:
    real, fresh, held = (regions(one) for one in wide)
    found = judge(real, np.concatenate([fresh[6:], hidden(wide[2][:6], "JPEG, quality", 50)]), held)
    assert found["verdict"]["level"] == "poor"
    assert "held-out regions, which the generator was not to see" in found["verdict"]["text"]


def test_few_held_out_images_that_are_training_images_are_left_out(
    judge: Judge, wide: list[np.ndarray]
) -> None:
    real, fresh, held = (regions(one) for one in wide)
    found = judge(real, fresh, np.concatenate([hidden(wide[0][:2], "JPEG, quality", 50), held[2:]]))
    assert found["verdict"]["level"] in {"fair", "unknown"}
    assert f"he held-out images are training images: 2 of {COUNT}" in found["verdict"]["text"]


def test_copies_pasted_into_larger_images_and_from_the_margins_of_training_images_are_found(
    judge: Judge, wide: list[np.ndarray]
) -> None:
    """Training images of 200 px have one region of 128 px, and a margin from which a copy may be.

    58 % of a copy lie in one of the four regions that it touches: at a quarter in each some are missed.
    """
    pasted = wide[1].copy()
    for k in range(6):
        pasted[k, 40:168, 20:148] = wide[0][k, 72:200, 72:200]
    found = judge(wide[0][:, :200, :200], pasted, wide[2], "--set", "evaluation.side=128")
    assert found["verdict"]["level"] == "poor"
    assert {one["image"] for one in found["found"]} == {f"{k:03d}.png" for k in range(6)}


def test_grey_copies_and_copies_in_noise_and_stain_are_found(judge: Judge, wide: list[np.ndarray]) -> None:
    real, fresh, held = (regions(one) for one in wide)
    grey = np.repeat(real[:3].mean(axis=-1, keepdims=True), 3, axis=-1).astype(np.uint8)
    others = np.stack([jpeg(stained(noisy(one, 8), 1.4), 60) for one in real[3:6]])
    found = judge(real, np.concatenate([fresh[6:], grey, others]), held)
    assert found["verdict"]["level"] == "poor"
    assert len(found["found"]) >= 5


def test_honest_tissue_is_not_accused_and_the_verdict_says_what_it_saw(judge: Judge) -> None:
    real, fresh, held = (regions(fields(part, HONEST)) for part in range(3))
    found = judge(real, fresh, held)
    assert found["verdict"]["level"] in {"good", "fair"}, found["verdict"]["text"]
    assert found["found"] == []
    assert found["copies"]["same"][2] == pytest.approx(1 - 0.025 ** (1 / HONEST), abs=1e-6)
    assert found["membership_auc"][1] < 0.55
    text = found["verdict"]["text"]
    assert text.index("Looked for") < text.index("ones.") < text.index("Not seen")


def test_what_was_not_looked_at_is_said(judge: Judge, wide: list[np.ndarray]) -> None:
    real, fresh, held = (regions(one) for one in wide)
    found = judge(real, fresh, held, "--set", "evaluation.training_samples=40")
    assert found["verdict"]["level"] in {"fair", "unknown"}
    assert "40 of 60 training regions were looked at" in found["verdict"]["text"]
