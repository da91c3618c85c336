"""An image that was saved between two steps resumes from there, with equal bytes."""

from pathlib import Path

import pytest

from diffgen.synthesis import inline
from diffgen.synthesis.sampler import Sampler
from tests.synthesis.helpers import run, shard_hashes
from tests.synthesis.test_driver import StopError


def stopped_after(monkeypatch: pytest.MonkeyPatch, leases: int | None) -> list[int]:
    """Patches of the image model that are worked on; after so many leases the run stops."""
    work, done, patches = Sampler.work, 0, []

    def counted(self: Sampler, lease):  # type: ignore[no-untyped-def]
        nonlocal done
        done += 1
        if leases is not None and done > leases:
            raise StopError
        patches.append(len(lease.patches.latents) if lease.kind == "image" else 0)
        return work(self, lease)

    monkeypatch.setattr(inline.Sampler, "work", counted)
    return patches


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
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    solver: str,
    cover: str,
    size: str,
    leases: int,
    damaged: bool,
) -> None:
    sampling = {"solver": solver, "cover": cover, "steps": 6, "mask_steps": 2}
    one = {"n": 1, "size": size, "lease": 1000, "sampling": sampling}
    whole = stopped_after(monkeypatch, None)
    run(tiny_bundle, tmp_path / "whole", snapshot_s=1e9, **one)
    assert not (tmp_path / "whole" / "snapshots").exists()
    out = tmp_path / "out"
    monkeypatch.undo()
    before = stopped_after(monkeypatch, leases)
    with pytest.raises(StopError):
        run(tiny_bundle, out, snapshot_s=0, **one)
    (saved,) = (out / "snapshots").iterdir()
    if damaged:
        saved.write_bytes(saved.read_bytes()[:1000])
    monkeypatch.undo()
    after = stopped_after(monkeypatch, None)
    run(tiny_bundle, out, snapshot_s=0, **one)
    assert shard_hashes(out) == shard_hashes(tmp_path / "whole")
    assert not (out / "snapshots").exists()
    assert ("is not whole" in capsys.readouterr().err) == damaged
    assert sum(before) > 0
    again = sum(before) + sum(after) - sum(whole)
    assert again == sum(before) if damaged else again <= 25, "at most the patches of the step it stopped in"
