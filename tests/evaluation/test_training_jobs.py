"""Use, run: networks learn what the masks say, finished ones are not trained again, Ray gives the same."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from diffgen.config import Downstream
from diffgen.errors import UserError
from diffgen.evaluation import small_nets
from diffgen.evaluation.downstream import DownstreamResults, evaluate_downstream
from diffgen.evaluation.images import RegionSet, open_images
from diffgen.evaluation.learnable import class_pixels
from diffgen.evaluation.tasks import Workers
from tests.evaluation.painted import painted

SETTINGS = Downstream(steps=40, batch=4, width=4, side=32, lr=3e-2, seeds=3)
SHORT = SETTINGS.model_copy(update={"steps": 10})
CLASSIFIED = SETTINGS.model_copy(
    update={"tasks": ("classification",), "positive": "nuclei", "lr": 1e-2, "steps": 60}
)
Sets = dict[str, RegionSet]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Sets:
    root = tmp_path_factory.mktemp("use")
    return {
        "real": painted(root / "real", 12, 1, empty=4),
        "synthetic": painted(root / "synthetic", 12, 2, empty=4),
        "shuffled": painted(root / "shuffled", 12, 3, empty=4, shuffled=True),
        "test": painted(root / "test", 10, 4, empty=3),
    }


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of networks that several tests ask for."""
    return tmp_path_factory.mktemp("cache")


def arguments(
    sets: Sets, cache: Path, settings: Downstream = SETTINGS, inline: bool = True, **other: RegionSet
) -> Any:
    three = [(sets | other)[name] for name in ("real", "synthetic", "test")]
    return (*three, settings, cache, Workers(1, False, inline, Console(quiet=True)))


def means(results: DownstreamResults, figure: str) -> dict[str, float]:
    return {row.arm.trained_on: row.figures[figure].mean for row in results.rows if figure in row.figures}


def files(cache: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in cache.iterdir() if path.is_file()}


def test_segmenters_learn_from_either_set(sets: Sets, cache: Path) -> None:
    found = evaluate_downstream(*arguments(sets, cache))
    assert [row.arm.trained_on for row in found.rows] == ["real", "synthetic", "both"]
    assert found.regions == {"real": 12, "synthetic": 12, "test": 10}
    assert min(means(found, "Dice nuclei").values()) > 0.85
    assert json.loads(json.dumps(found.to_json()))["seeds"] == 3


def test_classifiers_learn_from_either_set(sets: Sets, cache: Path) -> None:
    found = evaluate_downstream(*arguments(sets, cache, CLASSIFIED))
    assert [row.arm.trained_on for row in found.rows] == ["real", "synthetic", "both"]
    assert min(means(found, "balanced accuracy").values()) > 0.8


def test_masks_of_other_images_teach_nothing_and_do_not_agree(sets: Sets, cache: Path) -> None:
    mixed = evaluate_downstream(*arguments(sets, cache, synthetic=sets["shuffled"]))
    dice = means(mixed, "mean Dice")
    assert dice["real"] > 0.85
    assert dice["synthetic"] < 0.6
    good, bad = evaluate_downstream(*arguments(sets, cache)).agreement, mixed.agreement
    assert good["real"] == bad["real"]
    assert good["real"]["mean"].value == pytest.approx(dice["real"])
    assert good["synthetic"]["mean"].value > 0.85
    assert bad["synthetic"]["mean"].high < 0.7


def test_what_is_finished_is_not_trained_again(
    sets: Sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate_downstream(*arguments(sets, tmp_path, SHORT))
    before = files(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(small_nets, "build", lambda *_: pytest.fail("trained again"))
        assert evaluate_downstream(*arguments(sets, tmp_path, SHORT)) == first
    lost = [next(tmp_path.glob(kind)) for kind in ("*.json", "*.safetensors")]
    for path in lost:
        path.unlink()
    assert evaluate_downstream(*arguments(sets, tmp_path, SHORT)) == first
    there = files(tmp_path)
    assert there.keys() | {lost[1].name} == before.keys()


def test_networks_of_real_images_serve_another_synthetic_set(
    sets: Sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[int] = []
    monkeypatch.setattr(small_nets, "fit", lambda *_: fitted.append(1))
    evaluate_downstream(*arguments(sets, tmp_path, SHORT))
    assert len(fitted) == 9
    evaluate_downstream(*arguments(sets, tmp_path, SHORT, synthetic=sets["shuffled"]))
    assert len(fitted) == 9 + 6
    evaluate_downstream(*arguments(sets, tmp_path, SHORT, test=sets["shuffled"]))
    assert len(fitted) == 9 + 6
    evaluate_downstream(*arguments(sets, tmp_path, SHORT.model_copy(update={"lr": 1e-3})))
    assert len(fitted) == 9 + 6 + 9
    found = evaluate_downstream(*arguments(sets, tmp_path, SHORT.model_copy(update={"real_images": (12,)})))
    assert len(fitted) == 9 + 6 + 9
    assert found.rows[0].figures == found.rows[1].figures
    assert [row.arm.real_images for row in found.rows[:2]] == [None, 12]


def test_what_cannot_be_learned_is_an_error_before_any_training(
    sets: Sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small_nets, "build", lambda *_: pytest.fail("trained"))

    def refused(match: str, settings: Downstream = SETTINGS, **other: RegionSet) -> None:
        with pytest.raises(UserError, match=match):
            evaluate_downstream(*arguments(sets, tmp_path / "cache", settings, **other))

    empty = painted(tmp_path / "empty", 3, 7, empty=3)
    refused(r"empty \(synthetic\) has no pixel of nuclei", synthetic=empty)
    refused("two known classes in the test images", test=empty)
    refused(r"empty \(real\) has no region with", CLASSIFIED, real=empty)
    refused(r"full \(test\) has no region without", CLASSIFIED, test=painted(tmp_path / "full", 3, 8))
    few = SETTINGS.model_copy(update={"real_images": (2,)})
    refused(
        r"empty \(2 of real\) has no pixel of nuclei",
        few,
        real=painted(tmp_path / "few" / "empty", 40, 9, empty=39),
    )
    many = SETTINGS.model_copy(update={"real_images": (4, 40)})
    refused("real_images=40: .* has 12 labelled sources", many)
    for path in (tmp_path / "empty").glob("*_mask.png"):
        path.unlink()
    images = open_images(str(tmp_path / "empty"))
    refused(r"empty \(real\): no labelled regions", real=RegionSet(images, tuple(images.regions(32))))


def test_a_picture_that_cannot_be_read_is_named(sets: Sets, tmp_path: Path) -> None:
    shutil.copytree(sets["real"].images.where, tmp_path / "broken")
    images = open_images(str(tmp_path / "broken"))
    broken = RegionSet(images, tuple(images.regions(32)))
    arguments_of = arguments(sets, tmp_path / "cache", real=broken)
    class_pixels(broken, tmp_path / "cache")
    (tmp_path / "broken" / "003.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"003\.png cannot be read"):
        evaluate_downstream(*arguments_of)


EVERY = SHORT.model_copy(
    update={
        "arms": ("real", "synthetic", "both", "pretrained"),
        "shares": (0.25, 0.5),
        "filters": (False, True),
        "stops": 2,
        "real_images": (6,),
    }
)


def test_every_arm_and_nothing_twice(sets: Sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = evaluate_downstream(*arguments(sets, tmp_path, EVERY))
    names = [row.arm.name for row in found.rows]
    assert len(names) == len(set(names)) == 2 + 2 + 2 * 2 * 2 + 2 * 2
    assert found.regions == {"real": 10, "synthetic": 12, "test": 10, "validation": 2}
    assert sum(row.chosen for row in found.rows if row.arm.share) == 4
    assert {step for row in found.rows for step in row.stopped} <= {5, 10}
    assert all(row.validation is not None for row in found.rows)
    assert all(bool(row.gains) == (row.arm.trained_on != "real") for row in found.rows)
    monkeypatch.setattr(small_nets, "fit", lambda *_: pytest.fail("trained again"))
    assert evaluate_downstream(*arguments(sets, tmp_path, EVERY)) == found


def test_a_filter_takes_the_masks_of_other_images_away(sets: Sets, cache: Path) -> None:
    settings = SETTINGS.model_copy(update={"filters": (False, True), "arms": ("real", "both")})
    found = evaluate_downstream(*arguments(sets, cache, settings, synthetic=sets["shuffled"]))
    of = {row.arm.name: row.figures["mean Dice"].mean for row in found.rows}
    assert of["both, 50% synthetic, filtered"] > of["both, 50% synthetic"] + 0.02
    assert of["both, 50% synthetic, filtered"] > 0.85


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_ray_gives_the_same_bytes(sets: Sets, tmp_path: Path) -> None:
    inline = evaluate_downstream(*arguments(sets, tmp_path / "inline", SHORT))
    assert evaluate_downstream(*arguments(sets, tmp_path / "ray", SHORT, inline=False)) == inline
    here, there = files(tmp_path / "inline"), files(tmp_path / "ray")
    assert here.keys() == there.keys()
    for name, content in there.items():
        if name.endswith(".json"):  # also says how long it took
            assert json.loads(content)["outcomes"] == json.loads(here[name])["outcomes"]
        else:
            assert content == here[name]
    assert all(path.is_file() for path in (tmp_path / "ray").iterdir())


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_mistake_is_told_from_a_worker(sets: Sets, tmp_path: Path) -> None:
    shutil.copytree(sets["real"].images.where, tmp_path / "broken")
    images = open_images(str(tmp_path / "broken"))
    broken = RegionSet(images, tuple(images.regions(32)))
    class_pixels(broken, tmp_path / "cache")
    given = arguments(sets, tmp_path / "cache", inline=False, real=broken)
    (tmp_path / "broken" / "003.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"003\.png cannot be read"):
        evaluate_downstream(*given)
