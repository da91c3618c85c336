"""The whole of `diffgen evaluate`, on textures: what it writes, what it refuses, and that it goes on."""

import json
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from diffgen.cli import app
from diffgen.errors import UserError
from diffgen.evaluation import features, files
from diffgen.labels import Labels
from tests.evaluation.crimes import textures

LABELS = Labels(("unknown", "nuclei", "stroma"))
QUICK = ("--set", "evaluation.bootstrap=100", "--set", "evaluation.parts=[fidelity,privacy,labels]")


def folder(path: Path, pictures: np.ndarray, masks: bool = True, labels: Labels | None = LABELS) -> Path:
    """Images with label maps: dark is nuclei, light is stroma."""
    path.mkdir(parents=True)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(path / f"{number:03d}.png")
        if masks:
            label_map = np.where(picture[..., 1] < 120, 1, 2).astype(np.uint8)
            Image.fromarray(label_map).save(path / f"{number:03d}_mask.png")
    if labels:
        labels.save(path / "labels.json")
    return path


def run(*words: str) -> tuple[int, str]:
    """Exit status and what was said, as `diffgen` itself would end."""
    done = CliRunner().invoke(app, ["evaluate", *words, "--inline"])
    if isinstance(done.exception, UserError):
        return 2, str(done.exception)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real, held-out, honest and copied pictures, and a report of the two latter."""
    root = tmp_path_factory.mktemp("evaluation")
    real = textures(60, 0)
    folder(root / "real", real)
    folder(root / "held", textures(40, 1))
    folder(root / "honest", textures(40, 2))
    folder(root / "copied", real[:40, :, ::-1])
    for name in ("honest", "copied"):
        status, said = run(str(root / "real"), str(root / name), "--held-out", str(root / "held"),
                           "--out", str(root / f"report-{name}"), *QUICK)  # fmt: skip
        assert status == 0, said
    return root


def told(place: Path, name: str) -> dict:
    return json.loads((place / f"report-{name}" / "metrics.json").read_text())


def test_copies_are_called_poor_and_honest_pictures_are_not(place: Path) -> None:
    honest, copied = told(place, "honest"), told(place, "copied")
    assert copied["privacy"]["verdict"]["level"] == "poor"
    assert honest["privacy"]["verdict"]["level"] == "good"
    assert copied["privacy"]["copies"]["same"][0] == 1.0
    assert copied["privacy"]["authenticity"][0] < honest["privacy"]["authenticity"][0]
    assert copied["fidelity"]["verdict"]["level"] != "poor"  # as the report says: it sees no copies
    assert "sees a copy" in copied["fidelity"]["does_not_detect"][0]


def test_figures_say_what_they_are_of(place: Path) -> None:
    found = told(place, "honest")
    assert found["sets"]["synthetic"]["regions"] == 40
    assert found["sets"]["held_out"]["side"] == 64
    assert found["not_asked"] == ["large", "downstream"]
    assert found["fidelity"]["synthetic"]["samples"] == [40, 40]
    value, low, high = found["fidelity"]["synthetic"]["precision"]
    assert 0 <= low <= value <= high <= 1
    assert found["labels"]["synthetic"]["largest_share_error"] < 0.2
    assert found["command"][0] == "diffgen"


def test_report_has_every_verdict_and_command_and_loads_nothing(place: Path) -> None:
    page, found = (place / "report-honest" / "report.html").read_text(), told(place, "honest")
    for topic in ("fidelity", "privacy", "labels"):
        assert found[topic]["verdict"]["number"] in page
        assert f"evaluation.parts=[{topic}]" in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)


def test_the_same_command_computes_no_feature_again(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(place / "report-honest", tmp_path / "report")
    first = (tmp_path / "report" / "metrics.json").read_text()

    def never(*_: object) -> None:
        raise AssertionError("it is there already")

    monkeypatch.setattr(features, "compute", never)
    words = (str(place / "real"), str(place / "honest"), "--held-out", str(place / "held"))
    assert run(*words, "--out", str(tmp_path / "report"), *QUICK)[0] == 0
    again = (tmp_path / "report" / "metrics.json").read_text()
    assert strip(again) == strip(first)


def test_every_set_is_opened_once(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, real = [], files.open_files
    monkeypatch.setattr(files, "open_files", lambda where, *rest: opened.append(where) or real(where, *rest))
    words = [str(place / name) for name in ("real", "honest", "held")]
    run(*words[:2], "--held-out", words[2], "--out", str(tmp_path), "--set", "evaluation.side=999")
    assert sorted(opened) == sorted(words)


def strip(text: str) -> dict:
    found = json.loads(text)
    del found["command"]
    return found


def test_no_report_of_before_passes_for_one_of_now(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(place / "report-honest", tmp_path / "report")

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(features, "extract", stopped)
    words = (str(place / "real"), str(place / "honest"), "--out", str(tmp_path / "report"), *QUICK)
    status, said = run(*words)
    assert status == 130
    assert "no report is written" in said
    assert not (tmp_path / "report" / "report.html").exists()
    assert not (tmp_path / "report" / "metrics.json").exists()


def test_one_copy_is_one_too_many(place: Path, tmp_path: Path) -> None:
    mostly = np.concatenate([textures(39, 7), textures(60, 0)[:1]])
    folder(tmp_path / "mostly", mostly)
    words = ("--held-out", str(place / "held"), "--out", str(tmp_path / "r"))
    assert run(str(place / "real"), str(tmp_path / "mostly"), *words, *QUICK)[0] == 0
    found = json.loads((tmp_path / "r" / "metrics.json").read_text())["privacy"]
    assert found["copies"]["same"][0] == pytest.approx(1 / 40)
    assert found["verdict"]["level"] == "poor"


def test_what_the_data_does_not_serve_for_is_not_known_and_the_rest_stands(
    place: Path, tmp_path: Path
) -> None:
    bare = folder(tmp_path / "bare", textures(24, 6), masks=False, labels=None)
    words = ("--set", "evaluation.parts=[fidelity,labels,use]", "--set", "evaluation.bootstrap=100")
    status, said = run(str(place / "real"), str(place / "honest"), "--held-out", str(bare),
                       "--out", str(tmp_path / "r"), *words)  # fmt: skip
    assert status == 0, said
    found = json.loads((tmp_path / "r" / "metrics.json").read_text())
    assert [found[topic]["verdict"]["level"] for topic in ("labels", "downstream")] == ["unknown", "unknown"]
    assert found["fidelity"]["synthetic"]["samples"] == [24, 24]
    assert "Too few images to tell" in found["fidelity"]["verdict"]["text"]


@pytest.mark.slow
def test_large_images_and_use(place: Path, tmp_path: Path) -> None:
    words = ("--set", "evaluation.bootstrap=100", "--set", "evaluation.parts=[large,use]",
             "--set", "evaluation.side=32", "--set", "evaluation.patch_px=32",
             "--set", "evaluation.downstream={steps: 10, width: 4, side: 32, batch: 4, real_images: [20], "
             "positive: nuclei, positive_share: 0.4}")  # fmt: skip
    status, said = run(str(place / "real"), str(place / "honest"), "--held-out", str(place / "held"),
                       "--out", str(tmp_path), *words)  # fmt: skip
    assert status == 0, said
    found = json.loads((tmp_path / "metrics.json").read_text())
    large, use = found["large"], found["downstream"]
    assert (large["side"], large["patch_px"]) == (64, 32)
    assert large["synthetic"]["seam"][1] < 1 < large["synthetic"]["seam"][2]
    assert large["verdict"]["level"] != "poor"
    named = [(row["task"], row["trained_on"], row["real_images"]) for row in use["rows"]]
    assert named[:2] == [("classification", "real", None), ("classification", "real", 20)]
    assert len(named) == 2 * 5
    assert set(use["agreement"]["synthetic"]) == {"mean", "nuclei", "stroma"}
    page = (tmp_path / "report.html").read_text()
    for words_shown in ("Few real images", "resized to that", "balanced accuracy", "at least 40.00%"):
        assert words_shown in page


def test_without_held_out_images_privacy_is_not_known(place: Path, tmp_path: Path) -> None:
    status, _ = run(str(place / "real"), str(place / "honest"), "--out", str(tmp_path), *QUICK)
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert status == 0
    assert found["privacy"]["verdict"]["level"] == "unknown"
    assert found["privacy"]["c_t"] is None
    assert "--held-out" in (tmp_path / "report.html").read_text()


def test_without_label_maps_labels_are_not_known(place: Path, tmp_path: Path) -> None:
    bare = folder(tmp_path / "bare", textures(24, 5), masks=False, labels=None)
    words = ("--set", "evaluation.bootstrap=100", "--set", "evaluation.parts=[labels]")
    assert run(str(place / "real"), str(bare), "--out", str(tmp_path / "r"), *words)[0] == 0
    found = json.loads((tmp_path / "r" / "metrics.json").read_text())
    assert found["labels"]["verdict"]["level"] == "unknown"
    assert "has no label maps" in found["labels"]["not_measured"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("real", "nowhere"), "nowhere: no such folder"),
        (("real", "few"), "few: 5 regions of 64×64 pixels are too few, at least 20"),
        (("real", "classes"), "has other classes than"),
        (("real", "twice"), "twice: two samples have the key 0"),
        (("real", "real", "--set", "evaluation.side=999"), "real: 0 regions of 999×999"),
        (("real", "real", "--set", "evaluation.backbone=tests"), "backbone tests cannot be loaded"),
        (("real", "real", "--set", "evaluation.samples=0"), "evaluation.samples"),
    ],
)
def test_bad_input_is_one_line(place: Path, tmp_path: Path, words: tuple[str, ...], line: str) -> None:
    pictures = textures(24, 9)
    folder(tmp_path / "few", pictures[:5])
    folder(tmp_path / "classes", pictures, labels=Labels(("unknown", "nuclei", "gland")))
    shutil.copytree(place / "real", tmp_path / "real")
    (tmp_path / "twice").mkdir()
    for shard in "ab":
        with tarfile.open(tmp_path / "twice" / f"{shard}.tar", "w") as tar:
            for number in range(20):
                tar.add(tmp_path / "real" / f"{number:03d}.png", f"{number}.png")
    paths = [str(tmp_path / words[0]), str(tmp_path / words[1]), *words[2:]]
    status, said = run(*paths, "--out", str(tmp_path / "out"))
    assert status == 2
    assert line in said
    assert "\n" not in said.strip()


def test_a_bundle_is_sampled_first(tiny_bundle: Path, tmp_path: Path) -> None:
    bare = folder(tmp_path / "real", textures(24, 3), masks=False, labels=None)
    words = ("--set", "evaluation.images=6", "--set", "synthesis.size=64", "--set", "evaluation.side=32",
             "--set", "evaluation.parts=[fidelity,labels]", "--out", str(tmp_path / "report"))  # fmt: skip
    status, said = run(str(bare), str(tiny_bundle), *words)
    assert status == 0, said
    assert (tmp_path / "report" / "synthetic" / "manifest.parquet").exists()
    card = (tmp_path / "report" / "synthetic" / "README.md").read_text()
    assert "## Evaluation" in card
    assert card.index("## Evaluation") < card.index("## Limitations")
    assert run(str(bare), str(tiny_bundle), *words)[0] == 0
    assert (tmp_path / "report" / "synthetic" / "README.md").read_text().count("## Evaluation") == 1
