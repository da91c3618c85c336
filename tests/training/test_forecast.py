import io
from typing import Any

import pytest
import torch
from rich.console import Console

from diffgen import config
from diffgen.labels import Labels
from diffgen.models import bundle
from diffgen.training.cost import measure
from diffgen.training.forecast import forecast, time_per_step
from tests.conftest import TINY


def changed(**sections: dict[str, Any]) -> config.Settings:
    return config.validate(config.merge(TINY, sections))


@pytest.mark.parametrize("training", [{}, {"precision": "bf16", "channels_last": True}])
def test_timing_leaves_no_trace(training: dict[str, Any], labels: Labels) -> None:
    settings, threads = changed(training=training), torch.get_num_threads()
    cost = measure("mask", settings, labels)
    rate = time_per_step("mask", settings, labels, cost, torch.device("cpu"), patches=2, seconds=0.2)
    assert 1e6 < rate < 1e15
    assert torch.get_num_threads() == threads


def told(settings: config.Settings, labels: Labels, parts: Any = ("mask", "image")) -> str:
    console = Console(width=80, file=io.StringIO())
    forecast(parts, settings, labels, console, seconds=0.1)
    return console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO


def test_on_a_cpu_times_it(tiny: config.Settings, labels: Labels) -> None:
    text = told(tiny.model_copy(update={"gpu": False}), labels)
    for part in ("mask", "image"):
        assert f"time of the {part} model: " in text
    assert f"{sum(p.numel() for p in bundle.new_image_unet(tiny, labels).parameters()) / 1e6:.1f} M" in text
    assert text.count("as timed here with 1 thread(s), 1 worker;") == 2
    assert "ASSUMED" not in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="then it is timed")
def test_without_the_gpu_it_asks_for_assumes(labels: Labels) -> None:
    text = told(config.load("paper", ["training.workers=8", "gpu=true"]), labels, ["image"])
    assert "241.1 M (paper's code: 172.1 M)" in text
    assert "ASSUMED 40% of an H100's" in text
    assert "8 workers" in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="then it is timed there alone")
def test_where_there_is_no_gpu_it_says_both(tiny: config.Settings, labels: Labels) -> None:
    text = told(tiny, labels, ["mask"])
    assert "as timed here with 1 thread(s)" in text
    assert "on a GPU " in text
    assert "ASSUMED 40% of an H100's" in text
