"""The recipe as one command: which parts there are to do, in which order, with which commands."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from diffgen.errors import UserError
from jobs import bundle as recipe
from jobs.budget import SHARES
from jobs.bundle import Job, licence, parts_of, work
from jobs.record import Record
from tests.conftest import TINY


class Told(Job):
    """A job whose commands are noted, not run, and take the time they may; after `fails_at` one fails."""

    fails_at = 99
    clock = 0.0

    def diffgen(self, *words: object, settings: Sequence[str] = ()) -> None:
        if len(self.commands) >= self.fails_at:
            raise KeyboardInterrupt
        self.commands.append(" ".join(map(str, [*words, *settings])))
        Told.clock += sum(float(word.partition("=")[2]) for word in settings if "max_seconds" in word)


@pytest.fixture
def only_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what needs a bundle that is there."""
    for part in ("pictures", "bundle", "card"):
        monkeypatch.setitem(recipe.DOES, part, lambda _job, _seconds: None)
    monkeypatch.setattr(recipe.record, "tell", lambda *_: None)
    monkeypatch.setattr(recipe.time, "monotonic", lambda: Told.clock)


def job(folder: Path, **more: object) -> Told:
    tree = TINY | {"autoencoder": {"kind": "conv", "channels": 4, "factor": 4, "latents": "stored"}}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tree))
    return Told(str(folder / "tiny.yaml"), folder / "runs" / "a", "cpu", folder / "source", **more)  # type: ignore[arg-type]


def test_all_parts_in_their_order(tmp_path: Path) -> None:
    assert parts_of(job(tmp_path), Record(tmp_path)) == list(SHARES)


@pytest.mark.parametrize(
    ("given", "left_out"),
    [
        ({"data": Path("data")}, {"pictures", "prepare"}),
        ({"autoencoder": Path("weights")}, {"autoencoder"}),
        ({"image": Path("runs/b")}, {"autoencoder", "latents", "image"}),
        ({"mask": Path("runs/b")}, {"mask"}),
        ({"leave_out": ("evaluate",)}, {"evaluate"}),
        ({"overrides": ("autoencoder.kind=linear", "autoencoder.latents=live")}, {"autoencoder", "latents"}),
    ],
)
def test_what_is_given_is_not_made(tmp_path: Path, given: dict[str, object], left_out: set[str]) -> None:
    assert set(SHARES) - set(parts_of(job(tmp_path, **given), Record(tmp_path))) == left_out


@pytest.mark.usefixtures("only_commands")
def test_runs_the_commands_within_the_budget(tmp_path: Path) -> None:
    work(job(tmp_path), 1000)
    done = Record.of(tmp_path / "runs" / "a")
    assert list(done.seconds) == list(SHARES)
    assert [command.split()[0] for command in done.commands] == [
        "prepare", "train", "encode", "train", "train", "evaluate",
    ]  # fmt: skip
    given = [float(word.partition("=")[2]) for command in done.commands for word in command.split()
             if word.startswith("training.max_seconds")]  # fmt: skip
    assert len(given) == 3
    assert 700 < sum(given) < 1000
    assert sum(done.seconds.values()) == pytest.approx(sum(given))


@pytest.mark.usefixtures("only_commands")
def test_resumes_with_the_part_that_was_stopped_and_its_time(tmp_path: Path) -> None:
    first = job(tmp_path)
    first.fails_at = 0
    with pytest.raises(KeyboardInterrupt):
        work(first, 1000)
    stopped = Record.of(tmp_path / "runs" / "a")
    assert list(stopped.seconds) == ["pictures"]
    second = job(tmp_path)
    work(second, 5000)
    done = Record.of(tmp_path / "runs" / "a")
    assert list(done.seconds) == list(SHARES)
    assert done.given["prepare"] == stopped.given["prepare"]
    before = len(done.commands)
    work(job(tmp_path), 5000)
    assert len(Record.of(tmp_path / "runs" / "a").commands) == before


def test_a_part_that_a_signal_stopped_is_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("diffgen.training.driver.prepare_latents", stopped)
    asked = job(tmp_path, data=tmp_path)
    (tmp_path / "settings.yaml").write_text(asked.settings.dump())
    with pytest.raises(SystemExit, match="130"):
        Job.diffgen(asked, "encode", "--data", tmp_path, "--config", asked.recipe)


@pytest.mark.usefixtures("only_commands")
def test_says_what_a_budget_did_not_reach(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="used up before pictures, prepare"):
        work(job(tmp_path), 0)


def test_each_recipe_with_a_licence_says_all_of_it() -> None:
    for name in recipe.sources.CONVERT:
        known = licence(name)
        assert known is not None
        assert known["licence"] == "CC BY 4.0"
        assert set(known) == {
            "name", "paper", "source", "licence", "licence_url", "what", "changes", "scale",
        }  # fmt: skip
    assert licence("demo") is None


def test_a_joined_bundle_has_one_s_tissue_and_the_other_s_label_maps(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    import shutil

    from diffgen.models import bundle
    from jobs.join import join

    other = tmp_path / "other"
    shutil.copytree(tiny_bundle, other)
    index = json.loads((other / bundle.INDEX).read_text())
    (other / bundle.INDEX).write_text(json.dumps(index | {"mask_patch": 16}))
    join(tiny_bundle, other, tmp_path / "run" / "bundle")
    made, mine = bundle.load(tmp_path / "run" / "bundle"), bundle.load(tiny_bundle)
    assert made.facts.mask_patch == 16
    assert made.image_unet is not None
    assert mine.image_unet is not None
    for a, b in zip(made.image_unet.parameters(), mine.image_unet.parameters(), strict=True):
        assert a.equal(b)


def test_names_what_does_not_fit_in_a_joined_bundle(tiny_bundle: Path, tmp_path: Path) -> None:
    import shutil

    from diffgen.models import bundle
    from jobs.join import join

    other = tmp_path / "other"
    shutil.copytree(tiny_bundle, other)
    index = json.loads((other / bundle.INDEX).read_text())
    (other / bundle.INDEX).write_text(json.dumps(index | {"mpp": 0.25}))
    with pytest.raises(UserError, match="have other µm per pixel"):
        join(tiny_bundle, other, tmp_path / "run" / "bundle")
