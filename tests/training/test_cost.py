import io
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from torch import nn

from diffgen import config
from diffgen.labels import Labels
from diffgen.models import bundle
from diffgen.sampling.solvers import log_snr, noise_schedule
from diffgen.training.cost import count, example, kept_bytes, measure, small_saving, wide_share
from diffgen.training.forecast import forecast
from tests.conftest import TINY


def changed(**sections: dict[str, Any]) -> config.Settings:
    return config.validate(config.merge(TINY, sections)).on(gpu=False)


def test_parameters_at_the_papers_widths(labels: Labels) -> None:
    """The totals of the table in docs/training.md, beside 172.1 M and 38.4 M of the paper's code."""
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

    def add(layer: nn.Module, _: Any, out: torch.Tensor) -> None:
        nonlocal counted
        assert isinstance(layer, nn.Conv2d)
        counted += 2 * out.numel() * layer.in_channels * layer.kernel_size[0] ** 2

    for layer in unet.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(add)
    unet(*example(unet, 1, torch.device("cpu")))
    work = count(part, settings, labels)
    assert 0.97 * 3 * counted < work.flops_per_patch < 1.2 * 3 * counted
    assert work.parameters == sum(p.numel() for p in unet.parameters())


def test_four_times_the_area_costs_four_times(labels: Labels) -> None:
    """What a wide crop is counted as."""
    small = changed(image_model={"width": 32})
    large = changed(image_model={"width": 32, "patch": 16, "attention": [8]})
    ratio = count("image", large, labels).flops_per_patch / count("image", small, labels).flops_per_patch
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
    work, share = count("image", settings, labels), wide_share(settings)
    assert 0.4 < share < 0.6
    assert work.flops_per_step == pytest.approx(4 * work.flops_per_patch * (1 - share + 4 * share))
    masks = count("mask", settings, labels)
    assert masks.flops_per_step == settings.training.mask.batch * masks.flops_per_patch


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
    assert count("image", settings, labels).micro_batch == taken


def really_kept(unet: Any, patches: int, bf16: bool) -> int:
    """Bytes that the graph of a forward pass on the CPU holds, beside the weights."""
    held: dict[int, torch.Tensor] = {}
    weights = {p.untyped_storage()._cdata for p in unet.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        held[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
    ):
        out = unet(*example(unet, patches, torch.device("cpu")))
    assert out.grad_fn is not None
    return sum(t.untyped_storage().nbytes() for key, t in held.items() if key not in weights)


@pytest.mark.parametrize("part", ["image", "mask"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_fake_tensors_keep_what_real_ones_do(part: Any, precision: str, labels: Labels) -> None:
    """The CPU's own kernel of full attention keeps a little less."""
    settings = changed(training={"precision": precision}, **{f"{part}_model": {"width": 32}})
    unet = bundle.new_image_unet(settings, labels)
    if part == "mask":
        unet = bundle.new_mask_unet(settings, labels, 3)  # type: ignore[assignment]
    real = really_kept(unet, 9, precision == "bf16")
    kept = kept_bytes(part, settings, labels, 9)
    assert kept == pytest.approx(real, rel=0.03)
    less = changed(
        training={"precision": precision, "gradient_checkpointing": True}, **{f"{part}_model": {"width": 32}}
    )
    assert kept_bytes(part, less, labels, 9) < 0.9 * kept


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_each_patch_keeps_as_much_as_another(precision: str, labels: Labels) -> None:
    """And autocast, once, its copies of the weights."""
    settings = changed(training={"precision": precision})
    two, three, four = (kept_bytes("image", settings, labels, n) for n in (2, 3, 4))
    assert four - three == three - two > 0
    weights = count("image", settings, labels).parameters
    copies = 2 * weights if precision == "bf16" else 0
    assert two - 2 * (three - two) == pytest.approx(copies, rel=0.06, abs=100)


@pytest.mark.parametrize(("part", "steps"), [("image", 6), ("mask", 4)])
def test_telling_real_from_drawn_costs_two_steps_and_what_the_reference_does(
    part: Any, steps: int, labels: Labels
) -> None:
    """Forward and back count as three forwards; the reference has two, and one for each step it draws in."""
    sampling = {"steps": 6, "mask_steps": 4}
    plain = count(part, changed(sampling=sampling), labels)
    asked = changed(sampling=sampling, training={part: {"discriminative": 100.0}})
    told = count(part, asked, labels)
    assert told.flops_per_step == pytest.approx(plain.flops_per_step * (2 * 3 + 2 + steps) / 3)
    assert told.micro_batch == plain.micro_batch


def test_checkpointing_costs_no_flops_of_the_model(labels: Labels) -> None:
    """What is computed twice is in the time alone."""
    off, on = (count("image", changed(training={"gradient_checkpointing": c}), labels) for c in (False, True))
    assert on == off


def test_log_normal_levels_and_small_crops_have_their_share() -> None:
    wide = {"context": "wide", "wide_below": -2.0, "p_wide": 1.0}
    levels = changed(image_model=wide, diffusion={"noise_levels": "log-normal"})
    drawn = np.random.default_rng(0).normal(0.3, 1.0, 200_000)
    assert wide_share(levels) == pytest.approx(np.mean(-2 * drawn < -2), abs=0.005)
    small = changed(image_model={"patch": 16, "small_patch": 8, "p_small": 0.5, "attention": [8]})
    assert small_saving(small) == pytest.approx(0.5 * 0.75)
    assert small_saving(changed()) == 0


@pytest.mark.parametrize("training", [{}, {"precision": "bf16", "channels_last": True}])
def test_measuring_leaves_no_trace(training: dict[str, Any], labels: Labels) -> None:
    settings, threads = changed(training=training), torch.get_num_threads()
    found = measure("mask", settings, labels, count("mask", settings, labels), seconds=0.2)
    assert 1e6 < found.flops_per_second < 1e15
    assert 0 < found.optimizer_s < 10
    assert torch.get_num_threads() == threads


def printed(settings: config.Settings, labels: Labels, parts: Any = ("mask", "image")) -> str:
    console = Console(width=120, file=io.StringIO())
    forecast(parts, settings, labels, console, seconds=0.1)
    return console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO


def test_a_dry_run_measures_a_step_on_this_cpu(tiny: config.Settings, labels: Labels) -> None:
    text = printed(tiny.model_copy(update={"gpu": False}), labels)
    for part in ("mask", "image"):
        assert f"time of the {part} model: " in text
    assert f"{sum(p.numel() for p in bundle.new_image_unet(tiny, labels).parameters()) / 1e6:.1f} M" in text
    assert text.count("as timed here with 1 thread(s), 1 worker;") == 2
    assert "ASSUMED" not in text


def test_a_dry_run_counts_the_autoencoder_that_works_meanwhile(labels: Labels) -> None:
    live = changed(autoencoder={"kind": "kl", "source": "anywhere", "latents": "live"})
    assert "of it autoencoder    0 bytes" in printed(changed(), labels, ["image"])
    assert "of it autoencoder    0 bytes" not in printed(live, labels, ["image"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="then it is timed")
def test_a_dry_run_assumes_a_gpu_that_is_not_here(labels: Labels) -> None:
    text = printed(config.load("paper", ["training.workers=8", "gpu=true"]), labels, ["image"])
    assert "241.1 M" in text
    assert "ASSUMED 40% of an H100's" in text
    assert "8 workers" in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="then it is timed there alone")
def test_a_dry_run_without_a_gpu_says_both(tiny: config.Settings, labels: Labels) -> None:
    text = printed(tiny, labels, ["mask"])
    assert "as timed here with 1 thread(s)" in text
    assert "on a GPU " in text
    assert "ASSUMED 40% of an H100's" in text
