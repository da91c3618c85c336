"""Ways to draw large images, on a bundle of random weights: what is compared and what it costs."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffgen.evaluation import memorization, sampled_images
from diffgen.evaluation.images import open_images
from diffgen.evaluation.sections import large
from tests.evaluation.crimes import textures
from tests.evaluation.test_evaluate import folder, run

WORDS = ("--set", "evaluation.images=5", "--set", "synthesis.size=64", "--set", "evaluation.side=32",
         "--set", "evaluation.baseline_side=64", "--set", "evaluation.baseline_images=2", "--paper",
         "--set", "evaluation.parts=[methods]", "--set", "evaluation.bootstrap=100")  # fmt: skip


@pytest.mark.slow
def test_all_methods_fill_the_same_label_maps(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, alone = list[str](), list[int]()
    measure, nearest = large.measure, memorization.nearest
    monkeypatch.setattr(large, "measure", lambda crops, *rest: (
        read.append(crops.images.where), measure(crops, *rest)
    )[1])  # fmt: skip
    monkeypatch.setattr(memorization, "nearest", lambda one, other, *rest, **named: (
        alone.append(one is other and "exclude_self" in named), nearest(one, other, *rest, **named)
    )[1])  # fmt: skip
    real = folder(tmp_path / "real", textures(24, 0), masks=False, labels=None)
    status, said = run(str(real), str(tiny_bundle), "--out", str(tmp_path / "report"), *WORDS)
    assert status == 0, said
    found = json.loads((tmp_path / "report" / "metrics.json").read_text())["baselines"]
    assert list(found["baselines"]) == list(sampled_images.METHODS)
    assert read.count(str(real)) == 1, "the real images, once for all methods"
    assert len(read) == 1 + len(sampled_images.METHODS)
    assert sum(alone) == 1
    drawn = {
        name: open_images(str(tmp_path / "report" / "baselines" / name)) for name in sampled_images.METHODS
    }
    pictures = {}
    for name, images in drawn.items():
        pairs = [images.read(region) for region in images.regions(64)]
        pictures[name] = np.stack([picture for picture, _ in pairs])
        maps = np.stack([label_map for _, label_map in pairs if label_map is not None])
        masks = sorted((tmp_path / "report" / "baselines" / "masks").iterdir())
        given = [np.asarray(Image.open(path)) for path in masks]
        assert np.array_equal(maps, np.stack(given))
    assert not np.array_equal(pictures["jittered"], pictures["outpaint"])
    for name, one in found["baselines"].items():
        manifest = [json.loads(line) for line in _records(tmp_path / "report" / "baselines" / name)]
        mean = np.mean([record["forwards_by_model"]["image"] for record in manifest])
        assert one["cost"]["forwards"] == pytest.approx(mean)  # counted from the covers, as it was done
        assert one["cost"]["seconds"] > 0
    sequential = {name: one["cost"]["sequential"] for name, one in found["baselines"].items()}
    assert sequential["outpaint"] > sequential["jittered"] == sequential["random"] == 3
    page = (tmp_path / "report" / "report.html").read_text()
    for title in ("Table 1", "Table 5", "Fig. 3", "Fig. 11", "Figs. 6, 7"):
        assert title in page


@pytest.mark.slow
def test_a_side_that_one_method_cannot_draw_is_said_before_another_has_drawn_it(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    real = folder(tmp_path / "real", textures(24, 0), masks=False, labels=None)
    words = [word.replace("baseline_side=64", "baseline_side=72") for word in WORDS]
    run(str(real), str(tiny_bundle), "--out", str(tmp_path / "report"), *words)
    verdict = json.loads((tmp_path / "report" / "metrics.json").read_text())["baselines"]["verdict"]
    assert "not a multiple of half a patch" in verdict["text"]
    assert not (tmp_path / "report" / "baselines" / "jittered").exists()


def _records(where: Path) -> list[str]:
    lines = []
    for path in sorted(where.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    lines.append(tar.extractfile(member).read().decode())  # type: ignore[union-attr]  # files
    return lines


def test_other_methods_need_a_bundle(tmp_path: Path) -> None:
    real = folder(tmp_path / "real", textures(20, 0), masks=False, labels=None)
    status, said = run(str(real), str(real), "--paper", "--out", str(tmp_path / "report"))
    assert status == 2
    assert "--paper draws images by several methods and needs a bundle" in said


def test_squares_are_nested(tmp_path: Path) -> None:
    sampled_images.save_squares(tmp_path, (32, 64), 4)
    label_map = np.asarray(Image.open(tmp_path / "000064.png"))
    assert label_map.shape == (64, 64)
    assert list(label_map[32, :33][np.r_[True, np.diff(label_map[32, :33].astype(int)) != 0]]) == [1, 2, 3]
    assert np.array_equal(label_map, label_map.T)
    assert np.array_equal(label_map, label_map[::-1])
