from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from diffgen import config
from diffgen.labels import Labels
from diffgen.models import bundle
from diffgen.sampling.solvers import log_snr, noise_schedule
from diffgen.training.cost import flops_per_step, measure, small_saving, wide_share
from diffgen.training.memory import example
from tests.conftest import TINY


def changed(**sections: dict[str, Any]) -> config.Settings:
    return config.validate(config.merge(TINY, sections))


def test_parameters_at_the_papers_widths(labels: Labels) -> None:
    """The totals of the module's table, beside 172.1 M and 38.4 M of the paper's code."""
    paper = config.load("paper")
    with torch.device("meta"):
        image = bundle.new_image_unet(paper, labels)
        mask = bundle.new_mask_unet(paper, labels, paper.mask_model.channels)
    assert sum(p.numel() for p in image.parameters()) == pytest.approx(241.1e6, abs=5e4)
    assert sum(p.numel() for p in mask.parameters()) == pytest.approx(57.8e6, abs=5e4)


@pytest.mark.parametrize("part", ["image", "mask"])
def test_flops_are_those_of_the_convolutions_and_little_more(part: Any, labels: Labels) -> None:
    """2 · k² · inputs a value of a convolution's output, and twice that again in the backward pass."""
    settings = changed(**{f"{part}_model": {"width": 32}})
    counted, unet = 0.0, bundle.new_image_unet(settings, labels)
    if part == "mask":
        unet = bundle.new_mask_unet(settings, labels, 3)  # type: ignore[assignment]

    def count(layer: nn.Module, _: Any, out: torch.Tensor) -> None:
        nonlocal counted
        assert isinstance(layer, nn.Conv2d)
        counted += 2 * out.numel() * layer.in_channels * layer.kernel_size[0] ** 2

    for layer in unet.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)
    unet(*example(unet, 1, torch.device("cpu")))
    cost = measure(part, settings, labels)
    assert 0.97 * 3 * counted < cost.flops_per_patch < 1.2 * 3 * counted
    assert cost.parameters == sum(p.numel() for p in unet.parameters())


def test_four_times_the_area_costs_four_times(labels: Labels) -> None:
    """What a wide crop is counted as."""
    small = changed(image_model={"width": 32})
    large = changed(image_model={"width": 32, "patch": 16, "attention": [8]})
    ratio = measure("image", large, labels).flops_per_patch / measure("image", small, labels).flops_per_patch
    assert 3.8 < ratio <= 4


@given(
    below=st.floats(-8, 8),
    p_wide=st.floats(0, 1),
    schedule=st.sampled_from(["linear", "scaled_linear", "squaredcos_cap_v2"]),
)
def test_wide_share_is_that_of_the_time_steps(below: float, p_wide: float, schedule: str) -> None:
    settings = changed(
        image_model={"context": "wide", "wide_below": below, "p_wide": p_wide},
        diffusion={"schedule": schedule},
    )
    levels = log_snr(noise_schedule(1000, schedule, "epsilon").alphas_cumprod.numpy())
    assert wide_share(settings) == pytest.approx(
        np.mean([p_wide if level < below else 0 for level in levels])
    )


def test_wide_share_at_its_ends() -> None:
    assert wide_share(changed(image_model={"context": "fixed", "wide_below": 100.0})) == 0
    wide = {"context": "wide", "p_wide": 1.0, "wide_below": 100.0}
    assert wide_share(changed(image_model=wide)) == 1
    terminal = {"zero_terminal_snr": True, "prediction": "v_prediction"}
    lowest = changed(image_model=wide | {"wide_below": -100.0}, diffusion=terminal)
    assert wide_share(lowest) == pytest.approx(1 / 1000)


def test_a_step_is_its_samples(labels: Labels) -> None:
    settings = changed(image_model={"context": "wide", "p_wide": 1.0, "wide_below": 0.0})
    cost, share = measure("image", settings, labels), wide_share(settings)
    assert 0.4 < share < 0.6
    assert cost.flops_per_step == pytest.approx(4 * cost.flops_per_patch * (1 - share + 4 * share))
    assert flops_per_step("image", settings, labels) == cost.flops_per_step
    assert cost.flops == 4 * cost.flops_per_step
    assert measure("mask", settings, labels).wide_share == 0


@pytest.mark.parametrize(
    ("batch", "workers", "micro_batch", "context", "taken"),
    [
        (64, 1, None, "fixed", 64),
        (64, 4, None, "fixed", 16),
        (65, 4, None, "fixed", 17),
        (64, 4, 8, "fixed", 8),
        (64, 4, 32, "fixed", 16),
        (64, [2, 4], None, "fixed", 32),
        (64, 4, 8, "wide", 8),
        (64, 4, 2, "wide", 4),
        (64, 4, None, "wide", 64),
    ],
)
def test_patches_a_worker_takes_at_a_time(
    batch: int, workers: Any, micro_batch: int | None, context: str, taken: int, labels: Labels
) -> None:
    """Wide ones count as four; here all samples are wide."""
    settings = changed(
        image_model={"context": context, "p_wide": 1.0, "wide_below": 100.0},
        training={"workers": workers, "image": {"batch": batch, "micro_batch": micro_batch}},
    )
    assert measure("image", settings, labels).micro_batch == taken


def test_memory_and_time_of_more_workers(labels: Labels) -> None:
    one, two = (measure("image", changed(training={"workers": n}), labels) for n in (1, 2))
    assert one.state_bytes == 20 * one.parameters
    assert two.state_bytes == 24 * one.parameters  # and DDP's buckets
    assert two.activation_bytes == pytest.approx(one.activation_bytes / 2, rel=0.01)
    assert one.memory_bytes == one.state_bytes + one.activation_bytes
    live = {"kind": "kl", "source": "anywhere", "latents": "live"}
    with_encoder = measure("image", changed(autoencoder=live), labels)
    assert with_encoder.memory_bytes == one.memory_bytes + with_encoder.encoder_bytes > one.memory_bytes
    assert one.seconds(1e9) == 2 * two.seconds(1e9) == one.flops / 1e9


def test_checkpointing_costs_no_flops_of_the_model(labels: Labels) -> None:
    """Shares of peak stay comparable; the time of it is in what is timed, or assumed."""
    off, on = (
        measure("image", changed(training={"gradient_checkpointing": c}), labels) for c in (False, True)
    )
    assert on.flops == off.flops
    assert on.activation_bytes < off.activation_bytes


def test_log_normal_levels_and_small_crops_have_their_share() -> None:
    wide = {"context": "wide", "wide_below": -2.0, "p_wide": 1.0}
    levels = changed(image_model=wide, diffusion={"noise_levels": "log-normal"})
    drawn = np.random.default_rng(0).normal(0.3, 1.0, 200_000)
    assert wide_share(levels) == pytest.approx(np.mean(-2 * drawn < -2), abs=0.005)
    small = changed(image_model={"patch": 16, "small_patch": 8, "p_small": 0.5, "attention": [8]})
    assert small_saving(small) == pytest.approx(0.5 * 0.75)
    assert small_saving(changed()) == 0
