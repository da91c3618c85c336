"""From a slide to shards with the commands of the README, and what a user does with the shards."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from diffgen.cli import app
from tests.conftest import TINY
from tests.data.pictures import save_slide, tissue

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]


@pytest.fixture(scope="module")
def workplace(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: ARG001
    """A folder in which all three commands have run, each told no more than it must be."""
    folder = tmp_path_factory.mktemp("workplace")
    save_slide(folder / "slide.tiff", tissue(512, 640), mpp=0.5)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        said = [
            command("prepare", "slide.tiff", "--labels", "stain", "-c", "tiny.yaml"),
            command("train"),
            command("synthesize", "--n", "3", "--size", "96x64", "--samplers", "1"),
        ]
    (folder / "said.txt").write_text("\n".join(said))
    return folder


def command(*words: str) -> str:
    done = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_each_command_says_what_it_took_and_what_is_next(workplace: Path) -> None:
    said = (workplace / "said.txt").read_text()
    assert "data: data (the last one made here)" in said
    assert "bundle: runs/default/bundle (the last one made here)" in said
    assert said.count("next:") == 3


def test_tar_holds_pairs_with_provenance(workplace: Path) -> None:
    with tarfile.open(workplace / "out" / "shard-000000.tar") as tar:
        names = tar.getnames()
        assert names == [f"00000000{k}.{e}" for k in (0, 1) for e in ("png", "mask.png", "json")]
        files = {name: tar.extractfile(name).read() for name in names}  # type: ignore[union-attr]  # all are files
    image = Image.open(io.BytesIO(files["000000000.png"]))
    mask = Image.open(io.BytesIO(files["000000000.mask.png"]))
    assert (image.size, image.mode) == ((96, 64), "RGB")
    assert (mask.size, mask.mode) == ((96, 64), "L")
    record = json.loads(files["000000001.json"])
    assert record["index"] == 1
    assert record["run"]["sampling"]["steps"] == 3
    assert len(record["run"]["bundle"]) == 64
    assert sum(record["class_shares"]) == pytest.approx(1, abs=1e-4)


def test_shards_stream_into_webdataset(workplace: Path) -> None:
    import webdataset

    urls = sorted(str(path) for path in (workplace / "out").glob("shard-*.tar"))
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [f"{k:09d}" for k in range(3)]
    assert {"png", "mask.png", "json"} <= set(samples[0])


def test_shards_open_in_ray_data(workplace: Path) -> None:
    import ray.data

    rows = ray.data.read_webdataset(str(workplace / "out"), file_extensions=["tar"], decoder=False).take_all()
    assert sorted(row["__key__"] for row in rows) == [f"{k:09d}" for k in range(3)]
    assert all(len(row["mask.png"]) > 0 for row in rows)


def test_what_stands_beside_the_shards(workplace: Path) -> None:
    out = workplace / "out"
    assert "configs:" in (out / "README.md").read_text()
    assert Image.open(out / "preview.png").size[0] > 200
    names = [entry["name"] for entry in json.loads((out / "labels.json").read_text())["classes"]]
    assert names[0] == "unknown"
    with Image.open(workplace / "data" / "contact_sheet.png") as sheet:
        assert np.asarray(sheet).std() > 10


def test_the_bundle_is_one(workplace: Path) -> None:
    folder = workplace / "runs" / "default" / "bundle"
    for part in ("image_unet", "mask_unet", "autoencoder", "scheduler"):
        assert (folder / part).is_dir()
    card = (folder / "README.md").read_text()
    assert "| 1 | background |" in card
    assert yaml.safe_load((folder / "settings.yaml").read_text())["image_model"]["patch"] == 8
