"""Large images: known order is found, seams and drift are seen where they were put and nowhere else."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from diffgen.errors import UserError
from diffgen.evaluation.images import Region, RegionSet
from diffgen.evaluation.large_images import Large, compare, lags_for, measure
from diffgen.labels import Picture

SIDE, PATCH, RANGE = 64, 16, 6.0


class Held:
    """Pictures in memory as a set of images; each is a source of its own unless `sources` say other."""

    where, labels, mpp = "held", None, None

    def __init__(self, pictures: np.ndarray, sources: list[str] | None = None) -> None:
        self.pictures, self.sources = pictures, sources or [str(k) for k in range(len(pictures))]

    def read(self, region: Region) -> tuple[Picture, None]:
        return self.pictures[int(region.image)][region.box], None


def crops(pictures: np.ndarray, sources: list[str] | None = None) -> RegionSet:
    held: Any = Held(pictures, sources)
    side = pictures.shape[1]
    return RegionSet(
        held,
        tuple(Region(str(k), held.sources[k], 0, 0, side, False) for k in range(len(pictures))),
    )


def fields(count: int, seed: int, side: int = SIDE) -> np.ndarray:
    """(N, side, side) of mean 0 and variance 1 with correlation exp(−d/6): by its spectrum on a torus."""
    wrapped = np.minimum(np.arange(4 * side), 4 * side - np.arange(4 * side))
    power = np.fft.fft2(np.exp(-np.hypot(wrapped[:, None], wrapped) / RANGE)).real.clip(0)
    white = np.random.default_rng(seed).standard_normal((count, 4 * side, 4 * side))
    return np.fft.ifft2(np.fft.fft2(white) * np.sqrt(power)).real[:, :side, :side]


def pictures(values: np.ndarray) -> np.ndarray:
    tones = 128 + 30 * (values if values.ndim == 4 else values[..., None]) * np.ones(3)
    return tones.round().clip(0, 255).astype(np.uint8)


def glued(count: int, seed: int) -> np.ndarray:
    """Patches of fields of their own, side by side."""
    across = SIDE // PATCH
    patches = fields(count * across**2, seed, PATCH).reshape(count, across, across, PATCH, PATCH)
    return patches.transpose(0, 1, 3, 2, 4).reshape(count, SIDE, SIDE)


def evaluate_large(
    synthetic: RegionSet, real: RegionSet, patch: int | None, mpp: float | None, count: int = 400
) -> Large:
    return compare(*(measure(one, patch) for one in (synthetic, real)), patch, mpp, count)


@pytest.fixture(scope="module")
def found() -> dict[str, Large]:
    real = crops(pictures(fields(40, 0)))
    ramp = np.linspace(-1, 1, SIDE)[:, None, None] * np.array([1.5, 0, -1.5])
    made = {
        "alike": fields(40, 1),
        "glued": glued(40, 2),
        "ramp": fields(40, 3)[..., None] + ramp,
    }
    return {name: evaluate_large(crops(pictures(one)), real, PATCH, 0.5) for name, one in made.items()}


def test_known_order_is_found(found: dict[str, Large]) -> None:
    large = found["alike"]
    assert large.lags_px == list(lags_for(SIDE))
    assert large.lags_px[0] == 1
    assert large.lags_px[-1] == SIDE // 2
    assert large.lags_um == [lag / 2 for lag in large.lags_px]
    for lag, at in zip(large.lags_px, large.synthetic.correlation, strict=True):
        assert at.value == pytest.approx(np.exp(-lag / RANGE), abs=0.05)
        assert at.low < at.value < at.high
    assert large.correlation_error.value < 2 * large.correlation_error_real.mean


def test_a_seamless_field_has_no_seam_and_tiles_have(found: dict[str, Large]) -> None:
    for one in (found["alike"].synthetic, found["alike"].real, found["ramp"].synthetic):
        assert one.seam
        assert one.seam.low < 1 < one.seam.high
        assert one.seam.value == pytest.approx(1, abs=0.03)
    seam = found["glued"].synthetic.seam
    assert seam
    assert seam.low > 4


def test_tiles_lack_order_and_it_shows(found: dict[str, Large]) -> None:
    errors = [found[name].correlation_error for name in ("alike", "glued")]
    assert 0 <= errors[0].low <= errors[0].value < errors[1].low


def test_a_ramp_of_colour_is_found(found: dict[str, Large]) -> None:
    alike, ramp = found["alike"], found["ramp"].synthetic
    for one in (alike.synthetic, alike.real):
        assert one.systematic.low < 1 < one.systematic.high
    assert ramp.systematic.low > 20
    assert ramp.drift.low > max(alike.synthetic.drift.high, alike.real.drift.high)
    tops = np.array(ramp.drift_map)[:, :, :].mean(axis=1)
    assert (np.diff(tops[:, 0]) < 0).all(), "redder, so less dense, from top to bottom"
    assert (np.diff(tops[:, 2]) > 0).all()


def test_images_of_one_source_count_once() -> None:
    """Each image four times: intervals and chance are those of the sources."""
    once, real = pictures(fields(16, 5)), crops(pictures(fields(9, 0)))
    few = evaluate_large(crops(once), real, None, None)
    names = [str(k) for k in range(16)] * 4
    many = evaluate_large(crops(np.concatenate([once] * 4), names), real, None, None)
    assert many.synthetic.systematic.value == pytest.approx(few.synthetic.systematic.value)
    for one, four in zip(few.synthetic.correlation, many.synthetic.correlation, strict=True):
        assert (four.value, four.low, four.high) == pytest.approx((one.value, one.low, one.high))


def test_without_a_patch_that_is_smaller_there_is_no_seam(found: dict[str, Large]) -> None:
    one, real = crops(pictures(fields(9, 0))), crops(pictures(fields(9, 1)))
    large = evaluate_large(one, real, None, None, count=20)
    assert large.lags_um is large.synthetic.seam is None
    assert large == evaluate_large(one, real, None, None, count=20)
    told = json.loads(json.dumps(large.to_json(), allow_nan=False))
    assert told["synthetic"]["drift"] == [
        large.synthetic.drift.value, large.synthetic.drift.low, large.synthetic.drift.high
    ]  # fmt: skip
    assert evaluate_large(one, real, SIDE, None, count=20).synthetic.seam is None
    assert found["alike"].to_json()["real"]["seam"]


def flat(count: int) -> np.ndarray:
    return np.full((count, SIDE, SIDE, 3), np.arange(count)[:, None, None, None], np.uint8)


@pytest.mark.parametrize(
    ("synthetic", "real", "words"),
    [
        (lambda: flat(9), SIDE, "one colour all over"),
        (lambda: pictures(fields(1, 0)).repeat(9, axis=0), SIDE, "same mean colour"),
        (lambda: pictures(fields(1, 0)), SIDE, "one source"),
    ],
)
def test_what_cannot_be_judged_is_said(synthetic: Callable[[], np.ndarray], real: int, words: str) -> None:
    with pytest.raises(UserError, match=words):
        evaluate_large(crops(synthetic()), crops(pictures(fields(9, 0, real))), None, None)
