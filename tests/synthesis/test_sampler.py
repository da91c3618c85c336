import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffgen import config
from diffgen.errors import UserError
from diffgen.models import bundle
from diffgen.models.mask_codec import to_bits
from diffgen.sampling.canvas import NonFiniteError, Patch
from diffgen.synthesis.image_job import LabelMapJob
from diffgen.synthesis.leases import Lease, PatchBatch
from diffgen.synthesis.plan import Plan, make_plan
from diffgen.synthesis.render import ScaledLabelMap, cut, png, regions
from diffgen.synthesis.sampler import Sampler
from tests.synthesis.helpers import settings, work


@pytest.fixture(scope="module")
def sampler(tiny_bundle: Path) -> Sampler:
    return Sampler(tiny_bundle, settings().sampling)


def test_masks_travel_losslessly() -> None:
    """Promise 7: 8-bit, one channel, the id as value."""
    label_map = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = Image.open(io.BytesIO(png(label_map)))
    assert image.mode == "L"
    assert np.array_equal(np.asarray(image), label_map)


def test_threads_are_those_of_the_settings(tiny_bundle: Path) -> None:
    for threads in (2, 1):
        Sampler(tiny_bundle, settings().model_copy(update={"threads": threads}).on(gpu=False).sampling)
        assert torch.get_num_threads() == threads


def test_layout_cleans_and_lies_on_the_latents(sampler: Sampler) -> None:
    label_map = np.full((8, 8), 2, np.uint8)
    label_map[:, 4:] = 4
    label_map[1, 1] = 3  # 64 µm², less than the 100 of the settings
    laid = work(sampler, Lease(1, "label_map", LabelMapJob(to_bits(label_map, 5), 64, 120))).result
    assert laid.label_map.shape == (8, 8)
    assert laid.on_latents.shape == (16, 30)
    assert set(np.unique(laid.label_map)) == set(np.unique(laid.on_latents)) == {2, 4}


@pytest.fixture(scope="module")
def made(tiny_bundle: Path) -> Plan:
    return make_plan(bundle.pack(tiny_bundle), tiny_bundle, settings(), None)


def whole(plan: Plan, latents: np.ndarray, label_map: np.ndarray) -> Lease:
    (region,) = regions(plan, *label_map.shape, {0})
    return Lease(1, "render", cut(plan, latents, ScaledLabelMap(label_map, 1), region))


def test_a_decoder_s_nan_never_becomes_pixels(sampler: Sampler, made: Plan) -> None:
    """Promise 10, for the autoencoder."""
    latents = np.zeros((4, 8, 10), np.float32)
    latents[0, 3, 3] = np.nan
    result = work(sampler, whole(made, latents, np.zeros((32, 40), np.uint8))).result
    assert isinstance(result, NonFiniteError)
    assert "row 0, column 0" in str(result)


def test_render_gives_both_pictures_and_shares(sampler: Sampler, made: Plan) -> None:
    label_map = np.zeros((32, 40), np.uint8)
    label_map[:8] = 3
    (done,) = work(sampler, whole(made, np.zeros((4, 8, 10), np.float32), label_map)).result
    assert Image.open(io.BytesIO(done.image)).size == (40, 32)
    assert Image.open(io.BytesIO(done.image)).mode == "RGB"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(done.mask))), label_map)
    assert done.class_shares == [0.75, 0, 0, 0.25, 0]


def test_a_gpu_that_torch_cannot_use_is_said(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="torch cannot use one"):
        Sampler(tiny_bundle, settings().sampling, gpu=True)
    assert Sampler(tiny_bundle, settings().sampling, gpu=False).device.type == "cpu"


def test_bf16_is_near_fp32_and_repeats(tiny: config.Settings, tiny_bundle: Path) -> None:
    patches = PatchBatch.of([
        Patch(np.random.default_rng(k).standard_normal((4, 8, 8)).astype(np.float32), 500,
              np.full((8, 8), 1 + k % 3, np.uint8), np.ones((8, 8), bool))
        for k in range(6)
    ])  # fmt: skip
    made = {}
    for precision in ("fp32", "bf16", "auto"):
        sampler = Sampler(tiny_bundle, tiny.sampling.model_copy(update={"precision": precision}), gpu=False)
        made[precision] = work(sampler, Lease(1, "image", patches)).result
        assert np.array_equal(made[precision], work(sampler, Lease(2, "image", patches)).result)
    assert np.array_equal(made["fp32"], made["auto"])
    error = np.abs(made["bf16"] - made["fp32"]).max() / np.abs(made["fp32"]).max()
    assert 0 < error < 0.05
