"""How far a run is, by what its folder holds."""

import json
import os
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffgen.errors import UserError
from diffgen.lock import Holder, held
from diffgen.storage import Folder
from diffgen.synthesis import run_state
from diffgen.synthesis.run_state import look, rate, rows, samples, state_of
from tests.synthesis.helpers import StopError, Watch, run
from tests.test_cli import diffgen

AT_WORK, GONE, UNKNOWN = (Holder("process 1", 1000.0, at_work) for at_work in (True, False, None))


@given(st.integers(1, 40), st.integers(1, 64), st.floats(0.5, 1e4), st.booleans())
def test_the_rate_of_even_shards_is_theirs(num: int, each: int, gap: float, early: bool) -> None:
    written = [(1000 + gap * k, each) for k in range(1, num + 1)]
    before = [(10.0, 5), (20.0, 5)] if early else []
    assert rate([*before, *written], 1000.0) == pytest.approx(each / gap)


def test_shards_that_are_finished_together_count_from_the_beginning() -> None:
    assert rate([(160.0, 3), (160.5, 3)], 100.0) == pytest.approx(6 / 60.5)
    assert rate([(160.0, 3), (160.0, 3)]) is None
    assert rate([(90.0, 3), (95.0, 3)], 100.0) is None, "nothing since the run was started again"
    assert rate([]) is None


def test_only_the_last_shards_count() -> None:
    slow = [(1000.0 * k, 1) for k in range(1, 30)]
    fast = [(30_000.0 + k, 1) for k in range(run_state.RECENT + 1)]
    assert rate(slow + fast, 0.0) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("whole", "driver", "last", "usual_s", "state"),
    [
        (True, None, 5.0, 0.0, "finished"),
        (True, AT_WORK, 9000.0, 0.0, "running"),  # it is describing what is written
        (False, None, 9000.0, 0.0, "stopped"),
        (False, GONE, 9000.0, 0.0, "stopped"),
        (False, AT_WORK, 9000.0, 0.0, "running"),
        (False, AT_WORK, 5.0, 0.0, "quiet"),
        (False, AT_WORK, 5.0, 5000.0, "running"),  # its shards take hours
        (False, Holder("x", 9000.0, True), 5.0, 0.0, "running"),  # only just begun
        (False, UNKNOWN, 9000.0, 0.0, "running"),
        (False, UNKNOWN, 5.0, 0.0, "stopped"),
    ],
)
def test_state(whole: bool, driver: Holder | None, last: float, usual_s: float, state: str) -> None:
    assert state_of(whole, driver, last, 9500.0, usual_s) == state


@pytest.mark.parametrize(
    ("n", "facts", "expected"),
    [
        (7, {"tile": None}, 7),
        (None, {"tile": None}, None),
        (7, {"tile": 32, "size": {"height": 64, "width": 96}}, 42),
        (7, {"tile": 32, "size": None}, None),
    ],
)
def test_samples(n: int | None, facts: dict[str, Any], expected: int | None) -> None:
    assert samples(n, facts) == expected


def test_a_run_from_its_beginning_to_its_end(tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    many = {"n": 5, "size": "32", "images_per_shard": 2, "in_flight": 1}
    seen = list[run_state.RunState]()

    def watch(_: Any) -> None:
        seen.append(look(str(out)))

    run(tiny_bundle, out, watch=watch, **many)
    for one in seen:
        assert (one.total, one.shards_total, one.state, one.driver_at_work) == (5, 3, "running", True)
        assert one.made <= 5
        assert one.driver is not None
        assert f"process {os.getpid()} on" in one.driver
    assert [one.made for one in seen] == sorted(one.made for one in seen)
    assert {2, 4} <= {one.made for one in seen}
    assert any(one.seconds_left for one in seen)
    end = look(str(out))
    assert (end.made, end.failed, end.share, end.state, end.driver) == (5, 0, 1.0, "finished", None)
    assert end.num_bytes == sum(path.stat().st_size for path in out.glob("*.tar"))
    assert json.loads(json.dumps(end.to_json()))["state"] == "finished"


def test_a_run_that_was_stopped_says_so(tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    many = {"n": 4, "size": "32", "images_per_shard": 1, "in_flight": 1}

    def stop(_: Any) -> None:
        if len(list((out / "manifest").glob("*.parquet"))) == 2:
            raise StopError

    with pytest.raises(StopError):
        run(tiny_bundle, out, watch=stop, **many)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    found = look(str(out))
    assert (found.made, found.total, found.share, found.state) == (2, 4, 0.5, "stopped")
    assert found.seconds_left is None
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before, "nothing is written"
    assert "the same diffgen synthesize resumes it" in dict(rows(found))["state"]


def test_tiles_and_snapshots_and_what_a_filter_kept(tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    tiles = {"n": 2, "size": "64", "images_per_shard": 3, "emit": "tiles", "tile": 32}
    with pytest.raises(StopError):
        run(tiny_bundle, out, watch=Watch(stop=4), snapshot_s=0, **tiles)
    found = look(str(out))
    assert (found.unit, found.total, found.shards_total) == ("tiles", 8, 3)
    assert found.in_the_works > 0
    record = {"images": 8, "kept": 6, "left_out": {"copies": 2}}
    (out / "filter.json").write_text(json.dumps(record))
    told = dict(rows(look(str(out))))
    assert told["filter"] == "6 of 8 kept; 2 copies"


def test_what_could_not_be_made_is_counted(tmp_path: Path) -> None:
    import pyarrow as pa

    from diffgen.synthesis import manifest

    folder = Folder(str(tmp_path))
    folder.write_text("run.json", json.dumps({"images_per_shard": 2}))
    folder.write_text("settings.yaml", "synthesis: {n: 4}\n")
    made = manifest.hole("shard-000000", 0, "") | {"failed": None}
    lost = [manifest.hole("shard-000000", 1, "not finite"), manifest.hole("shard-000001", 4, "not finite")]
    for k, part in enumerate(([made, lost[0]], [lost[1]])):
        table = pa.Table.from_pylist(part, schema=manifest.PART)
        manifest.write(folder, f"manifest/shard-{k:06d}.parquet", table)
    (tmp_path / "manifest" / "shard-000002.parquet").write_bytes(b"damaged")
    found = look(str(tmp_path))
    assert (found.made, found.failed, found.total) == (1, 1, 4), "what is beyond n is left out"
    assert found.shards == 2
    assert "1, as the manifest says why" in dict(rows(found))["failed"]


def test_a_run_of_which_n_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"images_per_shard": 2}))
    found = look(str(tmp_path))
    assert (found.total, found.share, found.state) == (None, None, "stopped")
    assert "how many are wanted is not known" in dict(rows(found))["images"]
    (tmp_path / "manifest.parquet").touch()
    assert look(str(tmp_path)).state == "finished"


@pytest.mark.parametrize("text", [None, "{", "[]", '{"images_per_shard": "x"}'])
def test_what_is_no_run_is_one_line_and_status_2(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match=r"is no run of diffgen synthesize: no readable run\.json there"):
        look(str(tmp_path))
    done = diffgen("status", str(tmp_path), cwd=tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


def test_the_command_in_both_forms(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"images_per_shard": 2}))
    assert json.loads(diffgen("status", ".", "--json", cwd=tmp_path).stdout)["made"] == 0
    with held(Folder(str(tmp_path)), "--out"):
        done = diffgen("status", ".", cwd=tmp_path)
    assert done.returncode == 0
    assert "driver" in done.stdout


def test_behind_a_url() -> None:
    url = f"memory://{uuid.uuid4().hex}/out"
    Folder(url).write_text("run.json", json.dumps({"images_per_shard": 2}))
    assert look(url).state == "stopped"
