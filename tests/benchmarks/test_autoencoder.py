"""What the table of autoencoders says of latents and pixels whose answer is known."""

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import autoencoder
from diffgen import config
from diffgen.labels import Labels
from diffgen.models.conv_autoencoder import ConvAutoencoder
from tests.data import prepared


def test_noise_has_no_slope_and_waves_have() -> None:
    noise = torch.randn(64, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    assert autoencoder.slope(noise) == pytest.approx(1, rel=0.1)
    smooth = torch.nn.functional.avg_pool2d(noise, 5, stride=1, padding=2)
    assert autoencoder.slope(smooth) > 10


def test_blurred_is_less_rough() -> None:
    noise = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    blurred = torch.nn.functional.avg_pool2d(noise, 3, stride=1, padding=1)
    assert autoencoder.roughness(blurred) < 0.3 * autoencoder.roughness(noise)


def test_a_table_of_trained_and_linear_ones(
    tiny: config.Settings, labels: Labels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = prepared.make(tmp_path, tiny, labels)
    ConvAutoencoder(4, 4, (8,), (1,), (1,)).save_pretrained(tmp_path / "mine")
    told = tmp_path / "told.json"
    words = ["autoencoder.py", str(data), str(tmp_path / "mine"), "--quick", "--json", str(told)]
    monkeypatch.setattr(sys, "argv", words)
    autoencoder.main()
    rows = {row["autoencoder"]: row for row in json.loads(told.read_text())["rows"]}
    assert set(rows) == {"mine", "linear, 4× with 4"}
    assert rows["linear, 4× with 4"]["PSNR"] > rows["mine"]["PSNR"]  # fitted against not trained
