"""`diffgen filter`: what is planted is found, nothing is lost, neither Ray nor stopping changes anything."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from diffgen import config
from diffgen.curation import agreement, curate
from diffgen.curation.curate import Wanted, filter_run
from diffgen.errors import UserError
from diffgen.evaluation import small_nets
from diffgen.evaluation.images import open_images
from diffgen.evaluation.tasks import Workers
from diffgen.export.shard_set import ShardSet
from diffgen.labels import Labels
from tests.evaluation.painted import NAMES, painted, tissue
from tests.export.shards import Pair, write

SIDE = 40
SETTINGS = config.validate({
    "evaluation": {
        "downstream": {"steps": 40, "batch": 4, "width": 4, "side": 32, "lr": 0.03}, "samples": 60,
    },
    "filter": {"duplicate": 0.98},
})  # fmt: skip
QUIET = Console(quiet=True)
COPY, REPEAT, CONTRARY, ALIEN, FAILED = 8, 9, 10, 11, 12


def picture_of(folder: Path, number: int) -> Pair:
    from PIL import Image

    return tuple(np.asarray(Image.open(folder / f"{number:03d}{end}.png")) for end in ("", "_mask"))


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(painted(tmp_path_factory.mktemp("real") / "real", 50, 1, side=SIDE).images.where)


@pytest.fixture(scope="module")
def made(real: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of a run: eight good ones, then one of each kind that is to be left out, and a good one."""
    pairs = [tissue(5000 + k, SIDE) for k in range(8)]
    picture, mask = picture_of(real, 7)
    pairs.append((np.rot90(picture), np.rot90(mask)))
    pairs.append(pairs[2])
    picture, mask = tissue(6000, SIDE)
    pairs.append((picture, np.where(mask == 0, 0, 3 - mask).astype(np.uint8)))
    rng = np.random.default_rng(0)
    pairs.append((rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8), tissue(7000, SIDE)[1]))
    pairs += [tissue(8000, SIDE), tissue(9000, SIDE)]
    folder = tmp_path_factory.mktemp("made") / "out"
    write(folder, pairs, per_shard=4, labels=Labels(NAMES, ("lung",), (1.0,)), failed=(FAILED,))
    return folder


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "out"))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What several tests compute."""
    return tmp_path_factory.mktemp("work")


def rows(out: Path) -> list[dict[str, object]]:
    return pq.read_table(out / "filter.parquet").to_pylist()


def test_what_is_planted_is_left_out_and_nothing_is_lost(
    real: Path, out: Path, work: Path, tmp_path: Path
) -> None:
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.suffix in {".tar", ".parquet"}}
    found = filter_run(
        str(out), str(real), SETTINGS, Wanted(str(tmp_path / "kept"), tmp_path / "maps"), work, True, QUIET
    )
    table = rows(out)
    kinds = {row["index"]: str(row["reason"]) for row in table if not row["keep"]}
    assert kinds.keys() >= {COPY, REPEAT, CONTRARY, ALIEN, FAILED}
    assert len(kinds) <= 7
    assert "training image 007.png" in kinds[COPY]
    assert "the same as 000000002" in kinds[REPEAT]
    assert "contradict its label map" in kinds[CONTRARY]
    assert "could not be made: not finite" in kinds[FAILED]
    assert found.kept == sum(bool(row["keep"]) for row in table) == 14 - len(kinds)
    assert {name: (out / name).read_bytes() for name in before} == before
    assert table[0].keys() >= {"sha256", "class_shares", "keep", "weight", "reason", "disagreement"}
    card = (out / "README.md").read_text()
    assert f"{found.kept} of 14 images are kept" in card
    assert "| 1 | could not be made |" in card
    assert json.loads((out / "filter.json").read_text())["left_out"] == found.counts

    kept, whole = ShardSet(str(tmp_path / "kept")), ShardSet(str(out))
    keys = [kept.place(k).key for k in range(len(kept))]
    assert keys == [row["key"] for row in table if row["keep"]]
    number = {whole.place(k).key: k for k in range(len(whole))}
    for k, key in enumerate(keys):
        assert kept.file(k, "png") == whole.file(number[key], "png")
        mine, theirs = kept.label_map(k), whole.label_map(number[key])
        assert np.array_equal(mine[mine > 0], theirs[mine > 0])
        wrong = ((mine == 0) & (theirs > 0)).sum() / (theirs > 0).sum()
        assert wrong == pytest.approx(next(row["disagreement"] for row in table if row["key"] == key))
        assert kept.record(k)["class_shares"] == pytest.approx(kept.labels.shares(mine))
    read = open_images(str(tmp_path / "kept"))
    assert [region.image for region in read.regions(SIDE)] == keys
    holes = pq.read_table(tmp_path / "kept" / "manifest.parquet").to_pylist()
    assert {row["index"] for row in holes if row["failed"]} == kinds.keys()
    assert f"{found.kept} of 14" in (tmp_path / "kept" / "README.md").read_text()
    assert len(list((tmp_path / "maps").iterdir())) == sum(
        {row["mask_sha256"]: row["weight"] for row in table if row["weight"]}.values()
    )


def test_what_is_computed_is_kept_and_a_set_that_grows_changes_nothing(
    real: Path, out: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filter_run(str(out), str(real), SETTINGS, Wanted(), work, True, QUIET)
    first = (out / "filter.parquet").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(small_nets, "fit", lambda *_: pytest.fail("trained again"))
        patch.setattr(agreement, "whole_losses", lambda *_: pytest.fail("judged again"))
        filter_run(str(out), str(real), SETTINGS, Wanted(), work, True, QUIET)
    assert (out / "filter.parquet").read_bytes() == first
    few = filter_run(str(out), str(real), SETTINGS, Wanted(images=3), work, True, QUIET)
    assert few.kept == 3
    assert [row["index"] for row in rows(out) if row["keep"]] == [0, 1, 2]


def test_checks_that_are_not_asked_for_cost_nothing(
    real: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small_nets, "fit", lambda *_: pytest.fail("trained"))
    settings = config.merge(SETTINGS.model_dump(mode="json"), {"filter": {"checks": ["copies"]}})
    found = filter_run(str(out), str(real), config.validate(settings), Wanted(), tmp_path / "w", True, QUIET)
    assert not {row["index"] for row in rows(out) if row["keep"]} & {COPY, FAILED}
    assert found.unknown is None
    assert {row["weight"] for row in rows(out)} == {None}


def test_mistakes_are_said_before_any_work(real: Path, out: Path, tmp_path: Path) -> None:
    def refused(match: str, where: Path, data: Path, settings: config.Settings = SETTINGS) -> None:
        with pytest.raises(UserError, match=match):
            filter_run(str(where), str(data), settings, Wanted(), tmp_path / "w", True, QUIET)

    refused("no shards can be read", tmp_path / "nowhere", real)
    refused("no such folder", out, tmp_path / "nowhere")
    refused("too few to compare", out, Path(painted(tmp_path / "few", 8, 1, side=SIDE).images.where))
    other = Path(painted(tmp_path / "other", 30, 1, side=SIDE).images.where)
    Labels(("unknown", "bone", "fat")).save(other / "labels.json")
    refused("other classes", out, other)
    bare = Path(shutil.copytree(real, tmp_path / "bare"))
    for path in bare.glob("*_mask.png"):
        path.unlink()
    refused("no label maps to learn from", out, bare)
    assert not (tmp_path / "w").exists()
    assert not (out / "filter.parquet").exists()


def test_a_run_behind_a_url_is_measured_in_this_process(
    real: Path, out: Path, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a task writes to a folder of its node the driver does not see."""
    filter_run(str(out), str(real), SETTINGS, Wanted(), work, True, QUIET)
    first = (out / "filter.parquet").read_bytes()
    monkeypatch.setattr(Workers, "_on_ray", lambda *_: pytest.fail("sent to other nodes"))
    monkeypatch.chdir(tmp_path)
    filter_run(f"file://{out}", str(real), SETTINGS, Wanted(), None, False, QUIET)
    assert (out / "filter.parquet").read_bytes() == first


def test_where_things_go() -> None:
    assert curate.filtered("s3://bucket/out/") == "s3://bucket/out-filtered"
    assert curate.work_folder("s3://bucket/out/") == Path("out-filter-work")
    assert curate.work_folder("here/out") == Path("here/out-filter-work")


@pytest.mark.parametrize(("length", "side", "expected"), [(40, 32, [0, 8]), (64, 32, [0, 32]), (32, 32, [0])])
def test_windows_cover_a_length(length: int, side: int, expected: list[int]) -> None:
    from diffgen.curation.shard_images import corners

    assert corners(length, side) == expected
    assert corners(40, 32, 8) == [0]
    assert corners(60, 32, 8) == [0, 28]


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_ray_gives_the_same(real: Path, out: Path, work: Path, tmp_path: Path) -> None:
    filter_run(str(out), str(real), SETTINGS, Wanted(), work, True, QUIET)
    inline = (out / "filter.parquet").read_bytes()
    filter_run(str(out), str(real), SETTINGS, Wanted(), tmp_path / "w", False, QUIET)
    assert (out / "filter.parquet").read_bytes() == inline
