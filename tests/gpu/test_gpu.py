"""What only a GPU shows. `python -m pytest -m gpu tests/gpu`; elsewhere they are skipped. No Ray."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from diffgen import config
from diffgen.labels import Labels
from diffgen.sampling.canvas import Patch
from diffgen.synthesis.leases import Lease, PatchBatch
from diffgen.synthesis.sampler import Sampler
from tests.data import prepared
from tests.synthesis.helpers import run, shard_hashes

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU"),
]


@pytest.fixture
def patches() -> PatchBatch:
    return PatchBatch.of([
        Patch(np.random.default_rng(k).standard_normal((4, 8, 8)).astype(np.float32), 500,
              np.full((8, 8), 1 + k % 3, np.uint8), np.ones((8, 8), bool))
        for k in range(6)
    ])  # fmt: skip


def estimates(folder: Path, patches: PatchBatch, gpu: bool, **changed: object) -> np.ndarray:
    sampling = config.validate({"sampling": {"micro_batch": 4, **changed}}).sampling
    sampler = Sampler(folder, sampling, gpu)
    first, again = (sampler.compute(Lease(k, "image", patches)).result for k in (1, 2))
    assert np.array_equal(first, again)
    return first


@pytest.mark.parametrize(("precision", "bound"), [("fp32", 0.01), ("bf16", 0.05)])
def test_estimates_are_those_of_the_cpu(
    tiny_bundle: Path, patches: PatchBatch, precision: str, bound: float
) -> None:
    here = estimates(tiny_bundle, patches, gpu=False, precision="fp32")
    there = estimates(tiny_bundle, patches, gpu=True, precision=precision)
    assert np.abs(there - here).max() < bound * np.abs(here).max()


def test_cuda_graphs_change_rounding_only(tiny_bundle: Path, patches: PatchBatch) -> None:
    plain = estimates(tiny_bundle, patches, gpu=True)
    graphs = estimates(tiny_bundle, patches, gpu=True, compile=True)
    assert np.abs(graphs - plain).max() < 0.05 * np.abs(plain).max()


def test_a_run_repeats_and_says_how(tiny_bundle: Path, tmp_path: Path) -> None:
    for turn in ("first", "again"):
        run(tiny_bundle, tmp_path / turn, n=3)
    assert shard_hashes(tmp_path / "first") == shard_hashes(tmp_path / "again")
    said = json.loads((tmp_path / "first" / "run.json").read_text())["sampling"]
    assert said["precision"] == "bf16"


def test_both_models_are_trained(tiny: config.Settings, labels: Labels, tmp_path: Path) -> None:
    from rich.console import Console

    from diffgen.models import bundle
    from diffgen.training.driver import launch

    changed = {"gpu": True, "training": {"precision": "bf16", "image": {"steps": 4}, "mask": {"steps": 4}}}
    settings = config.validate(config.merge(tiny.model_dump(mode="json"), changed))
    data = prepared.make(tmp_path, settings, labels)
    made = launch(["image", "mask"], data, str(tmp_path / "run"), settings, Console(quiet=True), inline=True)
    whole = bundle.load(Path(made))
    assert whole.image_unet is not None
    assert whole.mask_unet is not None
