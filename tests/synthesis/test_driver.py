"""Whole runs into folders and stores, in one process; the same under Ray is in test_pool."""

import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from diffgen.errors import IncompleteError, UserError
from diffgen.models import bundle
from diffgen.sampling.canvas import NonFiniteError
from diffgen.synthesis.driver import synthesize
from diffgen.synthesis.leases import Result
from diffgen.synthesis.sampler import Sampler
from tests.synthesis.helpers import QUIET, StopError, Watch, run, settings, shard_hashes


@pytest.fixture(scope="module")
def whole(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    run(tiny_bundle, out, n=5)
    return out


def members(out: Path) -> dict[str, bytes]:
    found = {}
    for path in sorted(out.glob("shard-*.tar")):
        with tarfile.open(path) as tar:
            for info in tar:
                stream = tar.extractfile(info)
                assert stream is not None
                found[info.name] = stream.read()
    return found


def test_what_a_run_leaves(whole: Path) -> None:
    names = {path.name for path in whole.iterdir()}
    assert names == {
        "shard-000000.tar", "shard-000001.tar", "shard-000002.tar", "manifest", "manifest.parquet",
        "labels.json", "README.md", "preview.png", "run.json", "settings.yaml",
    }  # fmt: skip
    table = pq.read_table(whole / "manifest.parquet")
    assert table["key"].to_pylist() == [f"{k:09d}" for k in range(5)]
    files = members(whole)
    for row in table.to_pylist():
        record = json.loads(files[f"{row['key']}.json"])
        mask = np.asarray(Image.open(io.BytesIO(files[f"{row['key']}.mask.png"])))
        image = Image.open(io.BytesIO(files[f"{row['key']}.png"]))
        assert image.size == (64, 48)
        assert mask.shape == (48, 64)
        shares = np.bincount(mask.reshape(-1), minlength=5) / mask.size
        assert np.allclose(record["class_shares"], shares, atol=1e-6)
        assert row["forwards"] == record["forwards"] > 0
        assert row["seconds"] > 0
        assert not {"seconds", "host", "samplers"} & set(json.dumps(record).split('"'))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_fewer_images_are_a_prefix_and_more_go_on(
    tiny_bundle: Path, whole: Path, tmp_path: Path, n: int
) -> None:
    """Promise 3, and the same bytes whether all was made at once or in two runs."""
    run(tiny_bundle, tmp_path, n=n)
    few = members(tmp_path)
    assert few.items() <= members(whole).items()
    assert run(tiny_bundle, tmp_path, n=5).made == 5 - n
    assert shard_hashes(tmp_path) == shard_hashes(whole)


def test_the_same_command_again_makes_nothing(tiny_bundle: Path, whole: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.glob("shard-*")}
    assert run(tiny_bundle, whole, n=5).made == 0
    assert {path: path.stat().st_mtime_ns for path in whole.glob("shard-*")} == before


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "seed 0 → 1"),
        ({"sampling": {"steps": 4}}, "sampling.steps 3 → 4"),
        ({"images_per_shard": 9}, "images_per_shard 2 → 9"),
    ],
)
def test_another_command_into_the_folder_is_refused(
    tiny_bundle: Path, whole: Path, change: dict[str, object], named: str
) -> None:
    before = shard_hashes(whole)
    with pytest.raises(UserError, match=named):
        run(tiny_bundle, whole, **{"n": 5, **change})
    assert shard_hashes(whole) == before


def test_a_folder_begun_on_another_device(tiny_bundle: Path, tmp_path: Path) -> None:
    """Its bytes differ by rounding: mixing them is for whoever asks for it. Whole samples are kept."""
    run(tiny_bundle, tmp_path, n=1, sampling={"precision": "fp32", "micro_batch": 2})
    record = json.loads((tmp_path / "run.json").read_text())
    record["made_on"][0]["device"] = "H100"
    (tmp_path / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="made on another device: device H100 → cpu"):
        run(tiny_bundle, tmp_path, n=3)
    assert run(tiny_bundle, tmp_path, n=3, mix_devices=True).made == 2
    settled = [
        json.loads(d)["run"]["sampling"]["micro_batch"] for k, d in members(tmp_path).items() if ".json" in k
    ]
    assert settled == [2, 4, 4]


@pytest.mark.parametrize("after", [1, 7, 20, 33])
def test_stopped_anywhere_and_started_again(
    tiny_bundle: Path, whole: Path, tmp_path: Path, after: int
) -> None:
    """A driver that dies between two leases: the same command gives the same shards."""
    with pytest.raises(StopError):
        run(tiny_bundle, tmp_path, n=5, watch=Watch(stop=after))
    run(tiny_bundle, tmp_path, n=5)
    assert shard_hashes(tmp_path) == shard_hashes(whole)


def test_into_a_store_without_rename(tiny_bundle: Path, whole: Path) -> None:
    import fsspec

    run(tiny_bundle, "memory://runs/one", n=5)
    memory = fsspec.filesystem("memory")
    assert memory.cat("/runs/one/shard-000001.tar") == (whole / "shard-000001.tar").read_bytes()
    assert memory.exists("/runs/one/manifest.parquet")


def test_given_label_maps_come_back_as_they_were(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    folder.mkdir()
    label_map = np.random.default_rng(0).integers(0, 5, (40, 56)).astype(np.uint8)
    Image.fromarray(label_map).save(folder / "a.png")
    run(tiny_bundle, tmp_path / "out", folder, n=2)
    files = members(tmp_path / "out")
    for key in ("000000000", "000000001"):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(files[f"{key}.mask.png"]))), label_map)
    assert files["000000000.png"] != files["000000001.png"]


@pytest.mark.parametrize("size", ["32", "36x100", "200x32"])
def test_sizes_from_one_patch_up(tiny_bundle: Path, tmp_path: Path, size: str) -> None:
    """Smaller than a mask patch (128 px): cut from one; larger: random patch diffusion of the mask too."""
    run(tiny_bundle, tmp_path, n=1, size=size)
    width, _, height = size.partition("x")
    image = Image.open(io.BytesIO(members(tmp_path)["000000000.png"]))
    assert image.size == (int(width), int(height or width))


@pytest.mark.parametrize(
    "sampling",
    [
        {"solver": "ddim", "eta": 1.0, "steps": 4, "mask_steps": 4},
        {"cover": "random"},
        {"guidance": 2.0, "mask_guidance": 1.0},
        {"cover": "multidiffusion"},
        {"cover": "diffcollage"},
        {"cover": "outpaint"},
    ],
)
def test_other_solvers_rules_and_guidance_repeat(
    tiny_bundle: Path, whole: Path, tmp_path: Path, sampling: dict[str, object]
) -> None:
    run(tiny_bundle, tmp_path / "a", n=1, sampling=sampling)
    run(tiny_bundle, tmp_path / "b", n=1, sampling=sampling)
    assert shard_hashes(tmp_path / "a") == shard_hashes(tmp_path / "b")
    assert members(tmp_path / "a")["000000000.png"] != members(whole)["000000000.png"]


def test_outpainting_has_no_time_map(tiny_bundle: Path, tmp_path: Path) -> None:
    given = settings(sampling={"cover": "outpaint"})
    with pytest.raises(UserError, match=r"--save-time-map: sampling\.cover=outpaint"):
        synthesize(tiny_bundle, str(tmp_path / "out"), given, None, True, QUIET, time_maps=True)
    assert not (tmp_path / "out").exists()


def test_micro_batches_are_filled(tiny_bundle: Path, tmp_path: Path) -> None:
    """At least 95 % of their rows are asked for, over a run of 16 images."""
    many = {"n": 16, "size": "96", "lease": 32, "in_flight": 32, "sampling": {"micro_batch": 8}}
    status = run(tiny_bundle, tmp_path, **many).status
    assert status.rows >= 0.95 * status.slots
    assert status.rows == status.forwards


def test_another_micro_batch_differs_by_rounding(tiny_bundle: Path, tmp_path: Path) -> None:
    """A setting of the run, as sums may be taken in another order: promised are equal images, not bytes."""
    for size in (1, 3, 8):
        run(tiny_bundle, tmp_path / str(size), n=2, sampling={"micro_batch": size})
    one = members(tmp_path / "1")
    for size in ("3", "8"):
        other = members(tmp_path / size)
        for name in (name for name in one if name.endswith("png")):
            pictures = [np.asarray(Image.open(io.BytesIO(m[name]))).astype(int) for m in (one, other)]
            assert np.abs(pictures[0] - pictures[1]).max() <= (0 if "mask" in name else 1)


def test_a_bundle_of_two_patch_sides_widens_its_patches(tiny_bundle: Path, tmp_path: Path) -> None:
    """A wide patch counts as four forwards; a canvas narrower than it takes the base patch."""
    folder = tmp_path / "wide"
    shutil.copytree(tiny_bundle, folder)
    index = json.loads((folder / "model_index.json").read_text())
    index["patch_by_log_snr"] = [[-2.0, 16], [None, 8]]
    (folder / "model_index.json").write_text(json.dumps(index))
    for size in ("96", "48x96"):
        run(folder, tmp_path / size / "wide", n=2, size=size, lease=3)
        run(folder, tmp_path / size / "again", n=2, size=size, lease=50)
        run(tiny_bundle, tmp_path / size / "base", n=2, size=size)
        assert shard_hashes(tmp_path / size / "wide") == shard_hashes(tmp_path / size / "again")
        wide, base = (members(tmp_path / size / name)["000000000.png"] for name in ("wide", "base"))
        assert (wide == base) == (size == "48x96")


def poisoned(bundle_at: Path, folder: Path) -> Path:
    """The bundle with an image model that overflows where a patch has class 4."""
    made = bundle.load(bundle_at)
    assert made.image_unet is not None
    made.image_unet.label.weight.data[4] = 3e38
    bundle.save(made, folder / "poisoned", settings(), "A test.\n")
    return folder / "poisoned"


def maps_of(folder: Path, *classes: int) -> Path:
    folder.mkdir()
    for k, label in enumerate(classes):
        Image.fromarray(np.full((32, 32), label, np.uint8)).save(folder / f"{k}.png")
    return folder


def rows_of(out: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(out / "manifest.parquet").to_pylist()
    return rows


def test_an_image_that_is_not_finite_leaves_its_shard_to_the_others(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    """It is a function of its index: no rerun would mend it, and its shard's others would never be there."""
    generator, masks = poisoned(tiny_bundle, tmp_path), maps_of(tmp_path / "masks", 1, 4, 2, 3, 1)
    given = {"n": 5, "images_per_shard": 3}
    reason = "image 1, image model, step 1 of 3, patch 0: not a finite estimate"
    for _ in range(2):
        with pytest.raises(IncompleteError, match=f"1 of 5 samples are not in .*: {reason}"):
            run(generator, tmp_path / "out", masks, **given)
        names = {name.partition(".")[0] for name in members(tmp_path / "out")}
        assert names == {f"{k:09d}" for k in (0, 2, 3, 4)}
    assert [row["failed"] for row in rows_of(tmp_path / "out")] == [None, reason, None, None, None]
    assert rows_of(tmp_path / "out")[1]["sha256"] is None
    assert (tmp_path / "out" / "preview.png").exists()
    whole = maps_of(tmp_path / "good", 1, 1, 2, 3, 1)
    run(generator, tmp_path / "whole", whole, **given)
    for k in (0, 2, 3, 4):
        pictures = [members(tmp_path / name)[f"{k:09d}.png"] for name in ("out", "whole")]
        assert pictures[0] == pictures[1]


def test_a_shard_with_a_gap_is_done_and_grows(tiny_bundle: Path, tmp_path: Path) -> None:
    generator, masks = poisoned(tiny_bundle, tmp_path), maps_of(tmp_path / "masks", 4, 1)
    out, asked = tmp_path / "out", Watch()
    with pytest.raises(IncompleteError, match="1 of 2 samples"):
        run(generator, out, masks, n=2, images_per_shard=3)
    with pytest.raises(IncompleteError, match="1 of 2 samples"):
        run(generator, out, masks, n=2, images_per_shard=3, watch=asked)
    assert not asked.leases
    with pytest.raises(IncompleteError, match="2 of 4 samples"):
        run(generator, out, masks, n=4, images_per_shard=3)
    assert [bool(row["failed"]) for row in rows_of(out)] == [True, False, True, False]
    assert sorted(members(out)) == sorted(
        f"{k:09d}.{end}" for k in (1, 3) for end in ("png", "mask.png", "json")
    )


def test_a_run_of_nothing_but_failures_ends_like_the_others(tiny_bundle: Path, tmp_path: Path) -> None:
    generator, masks = poisoned(tiny_bundle, tmp_path), maps_of(tmp_path / "masks", 4)
    for _ in range(2):
        with pytest.raises(IncompleteError, match="2 of 2 samples"):
            run(generator, tmp_path / "out", masks, n=2)
    assert members(tmp_path / "out") == {}


def test_an_autoencoder_that_fails_once_costs_one_image(
    tiny_bundle: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute, renders = Sampler.compute, 0

    def broken_once(self: Sampler, lease):  # type: ignore[no-untyped-def]
        nonlocal renders
        renders += lease.kind == "render"
        broken = lease.kind == "render" and renders == 1
        return Result(NonFiniteError("no number")) if broken else compute(self, lease)

    monkeypatch.setattr(Sampler, "compute", broken_once)
    with pytest.raises(IncompleteError, match=r"1 of 5 samples.*autoencoder, no number"):
        run(tiny_bundle, tmp_path, n=5)
    made = members(tmp_path)
    assert len(made) == 4 * 3
    assert made.items() <= members(whole).items()
