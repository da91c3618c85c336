"""Guidance through a whole run: every forward of either network is foretold, counted and recorded."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffgen import config
from diffgen.errors import UserError
from diffgen.models import bundle
from diffgen.sampling.canvas import Patch
from diffgen.synthesis.coordinator import Coordinator
from diffgen.synthesis.forecast import forecast
from diffgen.synthesis.leases import Lease, PatchBatch
from diffgen.synthesis.plan import Plan, make_plan
from diffgen.synthesis.sampler import Sampler
from tests.synthesis.helpers import run, settings, work
from tests.synthesis.test_coordinator import paint

AUTO = {"kind": "auto", "scale": 2.0}
MIDDLE = {"from": -3.0, "to": 3.0}


def with_guide(source: Path, folder: Path, tiny: config.Settings, conditioning: str) -> Path:
    """The bundle at `source` with a worse network, of random weights too."""
    made = bundle.load(source)
    torch.manual_seed(1)
    made.image_guide = bundle.new_image_unet(tiny, made.labels)
    for parameter in made.image_guide.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    made.facts = replace(made.facts, conditioning=conditioning)
    bundle.save(made, folder, tiny, "Random weights.\n")
    return folder


@pytest.fixture(scope="module", params=["per_label", "joint"])
def guided(
    request: pytest.FixtureRequest, tiny: config.Settings, tiny_bundle: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:  # fmt: skip
    return with_guide(tiny_bundle, tmp_path_factory.mktemp("guided"), tiny, request.param)


def plan_of(folder: Path, **guidance: Any) -> Plan:
    return make_plan(bundle.pack(folder), folder, settings(sampling={"guidance": guidance}), None)


@pytest.mark.parametrize(
    "guidance", [AUTO, AUTO | MIDDLE, {"scale": 2.0}, {"scale": 2.0} | MIDDLE, AUTO | {"scale": 0.0}]
)
def test_forwards_are_foretold_counted_and_recorded(guided: Path, guidance: dict[str, Any]) -> None:
    plan = plan_of(guided, **guidance)
    one_by_one = plan.sampling.model_copy(update={"micro_batch": 1})  # then no forward is padding
    sampler, calls = Sampler(guided, one_by_one), {"image": 0, "guide": 0, "mask": 0}
    parts = {
        "image": sampler.bundle.image_unet, "guide": sampler.bundle.image_guide,
        "mask": sampler.bundle.mask_unet,
    }  # fmt: skip
    for name, unet in parts.items():
        assert unet is not None

        def count(*_: object, name: str = name) -> None:
            calls[name] += 1

        unet.register_forward_pre_hook(count)
    coordinator = Coordinator(plan, range(2), 2, 60)
    samples = paint(coordinator, sampler)
    status = coordinator.status()
    assert sum(s.record["forwards"] for s in samples.values()) == sum(calls.values()) == status.forwards
    assert sum(s.record["forwards_by_model"]["mask"] for s in samples.values()) == calls["mask"]
    assert status.rows == status.slots == status.forwards
    told = forecast(plan, bundle.pack(guided), 2, 2, lambda _: None)
    joint = plan.facts.conditioning == "joint"
    assert told.exact == (not joint or guidance["scale"] == 0), "a patch without labels would take one less"
    assert told.forwards == status.forwards
    everywhere = guidance == AUTO
    none = guidance.get("kind") != "auto" or guidance["scale"] == 0
    assert (calls["guide"] == 0) == none
    assert (calls["guide"] == calls["image"]) == everywhere, "one of the guide for each of the image model"


def test_a_sampler_guides_by_the_formula(guided: Path) -> None:
    rng = np.random.default_rng(0)
    patches = [
        Patch(rng.standard_normal((4, 8, 8)).astype(np.float32), 500, np.full((8, 8), 2, np.uint8),
              np.ones((8, 8), bool), log_snr=level)
        for level in (0.0, -9.0)
    ]  # fmt: skip
    sampler = Sampler(guided, plan_of(guided, **AUTO, **MIDDLE).sampling)
    made = work(sampler, Lease(1, "image", PatchBatch.of(patches))).result.reshape(4, 2, 8, 8)
    latents, steps = torch.stack([torch.from_numpy(p.latents) for p in patches]), torch.tensor([500, 500])
    maps = torch.full((2, 8, 8), 2)
    with torch.inference_mode():
        own = sampler.bundle.image_unet(latents, steps, maps).numpy()  # type: ignore[misc]  # it has one
        worse = sampler.bundle.image_guide(latents, steps, maps).numpy()  # type: ignore[misc]
    np.testing.assert_allclose(made[:, 0], own[0] + 2.0 * (own[0] - worse[0]), atol=1e-4)
    np.testing.assert_allclose(made[:, 1], own[1], atol=1e-4)


def test_each_network_s_micro_batches_are_filled(guided: Path, tmp_path: Path) -> None:
    many = {"n": 8, "size": "96", "lease": 24, "in_flight": 32}  # a lease of three halves of what fills both
    status = run(guided, tmp_path, **many, sampling={"micro_batch": 8, "guidance": AUTO}).status
    assert status.rows >= 0.95 * status.slots
    assert status.rows == status.forwards


def test_without_a_worse_network_nothing_begins(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"guidance\.kind auto: .* has no worse network \(image_unet_guide\)"):
        run(tiny_bundle, tmp_path / "out", n=1, sampling={"guidance": AUTO})
    assert not (tmp_path / "out").exists()
