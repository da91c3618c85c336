"""The driver of stored latents: what it makes, keeps and refuses. The encoder is `test_latent_shards`."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from diffgen import config
from diffgen.data.stream import PatchTable
from diffgen.errors import UserError
from diffgen.labels import Labels
from diffgen.models import bundle
from diffgen.training.driver import launch, prepare_latents
from diffgen.training.latent_shards import cache_key
from diffgen.training.latents import encode
from diffgen.training.stored import StoredCrops
from tests.data import prepared


@pytest.fixture
def data(tiny: config.Settings, labels: Labels, tmp_path: Path) -> Path:
    return prepared.make(tmp_path / "data", tiny, labels)


def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def said(screen: Console) -> str:
    """The last line."""
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue().splitlines()[-1]


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_refuses_goes_on_and_repeats(data: Path, tiny_bundle: Path, tiny: config.Settings) -> None:
    broken = data / "image-test-000000.tar"
    content = broken.read_bytes()
    broken.write_bytes(content[:2000])
    with pytest.raises(UserError, match=r"image-test-000000\.tar.*; the same command resumes"):
        encode(data, tiny_bundle, tiny, console())
    (folder,) = (data / "latents").iterdir()
    made = folder / "image-train-000000.arrow"
    assert list(folder.iterdir()) == [made]
    with pytest.raises(UserError, match="no complete latents"):
        StoredCrops(folder, PatchTable(data, "image"), False)

    broken.write_bytes(content)
    written, screen = made.stat().st_mtime_ns, console()
    assert encode(data, tiny_bundle, tiny, screen) == folder
    line = said(screen)
    assert line.startswith("latents: 12 patches × 8 variants in ")
    assert "1 of 2 shards made before" in line
    assert line.endswith(str(folder))
    assert made.stat().st_mtime_ns == written
    assert {path.name for path in folder.iterdir()} == {
        made.name, "image-test-000000.arrow", "latents.json"
    }  # fmt: skip
    told = json.loads((folder / "latents.json").read_text())
    assert (told["patches"], told["encoded"]) == (12, 48)
    assert told["bytes"] == sum(path.stat().st_size for path in folder.glob("*.arrow"))
    assert told["images_per_s"] > 0
    for split in ("train", "test"):
        latents, _ = StoredCrops(folder, PatchTable(data, "image", split), False).crop(
            5, 16, np.random.default_rng()
        )
        assert latents.std() > 0

    assert encode(data, tiny_bundle, tiny, screen) == folder
    assert said(screen) == f"latents: {folder} (made before)"


def test_a_folder_that_cannot_be_written_is_named(
    data: Path, tiny_bundle: Path, tiny: config.Settings
) -> None:
    (data / "latents").write_text("a file where the folder belongs")
    with pytest.raises(UserError, match=r"latents cannot be written to .*latents"):
        encode(data, tiny_bundle, tiny, console())


def test_no_prepared_data_is_named(tmp_path: Path, tiny_bundle: Path, tiny: config.Settings) -> None:
    with pytest.raises(UserError, match="holds no prepared data"):
        encode(tmp_path, tiny_bundle, tiny, console())


def test_no_image_patches_are_named(
    tmp_path: Path, tiny_bundle: Path, tiny: config.Settings, labels: Labels
) -> None:
    data = prepared.make(tmp_path / "maps", tiny, labels, images=0, unlabelled=0)
    with pytest.raises(UserError, match="no image patches"):
        encode(data, tiny_bundle, tiny, console())


def test_a_run_that_starts_from_a_bundle_has_its_latents(
    data: Path, tiny_bundle: Path, tiny: config.Settings, tmp_path: Path
) -> None:
    """In the bundle's own scaling, so that training from it does not encode all again."""
    folder = prepare_latents(data, str(tmp_path / "run"), tiny, console(), str(tiny_bundle), inline=True)
    codec = bundle.load(tiny_bundle).codec
    assert folder.name == cache_key(data, codec, tiny.autoencoder.dihedral).identity


def test_behind_a_url_they_are_refused_before_anything_is_asked_of_it(
    tiny: config.Settings, tmp_path: Path
) -> None:
    data, run = "s3://nowhere/data", str(tmp_path / "run")
    stored = config.validate(config.merge(tiny.model_dump(), {"autoencoder": {"latents": "stored"}}))
    with pytest.raises(UserError, match=r"^s3://nowhere/data: stored latents need a folder"):
        prepare_latents(data, run, tiny, console())
    with pytest.raises(UserError, match=r"or train with autoencoder\.latents=live$"):
        launch(["mask", "image"], data, run, stored, console())
    assert not Path(run).exists()
