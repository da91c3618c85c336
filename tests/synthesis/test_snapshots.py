"""An image that was saved between two steps resumes from there, with equal bytes."""

from pathlib import Path

import pytest

from tests.synthesis.helpers import StopError, Watch, run, shard_hashes


@pytest.mark.parametrize(
    ("solver", "cover", "size", "leases"),
    [
        ("dpmsolver++", "jittered", "96", 7),
        ("sde-dpmsolver++", "jittered", "96", 7),
        ("unipc", "jittered", "96", 7),
        ("dpmsolver++", "outpaint", "56x32", 13),  # in the middle of its second window
    ],
)
@pytest.mark.parametrize("damaged", [False, True])
def test_it_goes_on_where_it_was_saved(
    tiny_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    solver: str,
    cover: str,
    size: str,
    leases: int,
    damaged: bool,
) -> None:
    sampling = {"solver": solver, "cover": cover, "steps": 6, "mask_steps": 2}
    one = {"n": 1, "size": size, "lease": 1000, "sampling": sampling}
    whole, before, after = Watch(), Watch(stop=leases), Watch()
    run(tiny_bundle, tmp_path / "whole", snapshot_s=1e9, watch=whole, **one)
    assert not (tmp_path / "whole" / "snapshots").exists()
    out = tmp_path / "out"
    with pytest.raises(StopError):
        run(tiny_bundle, out, snapshot_s=0, watch=before, **one)
    (saved,) = (out / "snapshots").iterdir()
    if damaged:
        saved.write_bytes(saved.read_bytes()[:1000])
    run(tiny_bundle, out, snapshot_s=0, watch=after, **one)
    assert shard_hashes(out) == shard_hashes(tmp_path / "whole")
    assert not (out / "snapshots").exists()
    assert ("is not whole" in capsys.readouterr().err) == damaged
    assert before.patches > 0
    again = before.patches + after.patches - whole.patches
    assert again == before.patches if damaged else again <= 25, (
        "at most the patches of the step it stopped in"
    )
