"""Fixtures shared by all tests: a tiny bundle with random weights, tiny settings, one Ray cluster."""

import os
from collections.abc import Iterator
from pathlib import Path

# Two threads each of two processes on two cores spin for one another: twice the work. Read at torch's import.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault(
    "RAY_worker_niceness", "0"
)  # by default Ray yields to all else, and a busy machine starves it

import numpy as np
import pytest
import torch
from hypothesis import settings

from diffgen import config
from diffgen.labels import Labels
from diffgen.models import bundle
from diffgen.models.autoencoder import LatentCodec, LinearAutoencoder
from diffgen.models.mask_codec import num_bits
from diffgen.sampling.solvers import noise_schedule

settings.register_profile("busy", deadline=None)  # the machine may have other work
settings.load_profile("busy")

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"

TINY = {
    "autoencoder": {"factor": 4, "channels": 4},
    "image_model": {"patch": 8, "width": 8, "multipliers": [1, 2], "blocks": 1, "attention": [4], "heads": 2},
    "mask_model": {"patch": 8, "width": 8, "multipliers": [1, 2], "blocks": 1, "attention": [4], "heads": 2},
    "prepare": {"labels": "stain", "min_tissue": 0.1},
    "threads": 1,
    "training": {
        "image": {"steps": 4, "batch": 4, "checkpoint_every": 2, "sample_every": 4},
        "mask": {"steps": 4, "batch": 4, "checkpoint_every": 2, "sample_every": 4},
    },
    "sampling": {"steps": 3, "mask_steps": 3, "micro_batch": 4, "decode_tile": 16, "min_region_um2": 100.0},
    "synthesis": {"n": 3, "size": "64x48", "images_per_shard": 2, "in_flight": 3, "lease": 5},
}
"""A patch of 32 px, mask patches of 8 mask pixels of 8 µm = 128 px."""


@pytest.fixture(scope="session")
def tiny() -> config.Settings:
    return config.validate(TINY)


@pytest.fixture(scope="session")
def labels() -> Labels:
    names = ("unknown", "background", "stroma", "tumour", "necrosis")
    return Labels(names, contexts=("lung", "skin"), context_shares=(0.75, 0.25))


@pytest.fixture(scope="session")
def tiny_bundle(tiny: config.Settings, labels: Labels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of both models with random weights that do not give zeros."""
    torch.manual_seed(0)
    codec = LatentCodec(LinearAutoencoder.fit(torch.rand(2, 3, 64, 64) * 2 - 1, 4, 4))
    image = bundle.new_image_unet(tiny, labels)
    mask = bundle.new_mask_unet(tiny, labels, num_bits(len(labels)))
    for parameter in (*image.parameters(), *mask.parameters()):
        parameter.data += 0.1 * torch.randn_like(parameter)
    schedule = dict(noise_schedule(1000, "squaredcos_cap_v2", "epsilon").config)
    made = bundle.Bundle(bundle.generator_config(tiny, codec), labels, schedule, codec, image, mask)
    folder = tmp_path_factory.mktemp("bundle")
    bundle.save(made, folder, tiny, "A test.\n")
    return folder


@pytest.fixture(scope="session")
def ray_cluster(pytestconfig: pytest.Config) -> Iterator[None]:
    """One local cluster for all tests of a process that need Ray.

    A CPU of it is a process of Ray Data, which imports all that the pipeline does: no more than two of them,
    but where samplers by the handful are killed.
    """
    import ray

    from diffgen.cluster import connect

    ray.shutdown()  # a command that a test ran in this process may have started one of its own size
    connect(num_cpus=4 if pytestconfig.option.markexpr == "faults" else 2)
    yield
    ray.shutdown()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
