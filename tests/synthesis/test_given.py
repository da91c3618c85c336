"""Appearances of an image: drawn or given, the same whatever n is."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffgen import config
from diffgen.appearance import NAMES, Appearance
from diffgen.errors import UserError
from diffgen.labels import Labels
from diffgen.models import bundle
from diffgen.synthesis.coordinator import Coordinator
from diffgen.synthesis.driver import synthesize
from diffgen.synthesis.given import read_references
from diffgen.synthesis.plan import make_plan
from diffgen.synthesis.sampler import Sampler
from tests.synthesis.helpers import QUIET, StopError, Watch, run, settings, shard_hashes, work


@pytest.fixture(scope="module")
def looking(tiny: config.Settings, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle with an image model that is conditioned on context and appearance."""
    made, folder = bundle.load(tiny_bundle), tmp_path_factory.mktemp("looking")
    model = tiny.image_model.model_copy(update={"conditions": ("context", "appearance")})
    settings = tiny.model_copy(update={"image_model": model})
    torch.manual_seed(0)
    made.image_unet = bundle.new_image_unet(settings, made.labels)
    for parameter in made.image_unet.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    made.facts = bundle.generator_config(settings, made.codec)
    raw = np.random.default_rng(0).normal(1, 1, (40, len(NAMES))).astype(np.float32)
    made.appearance = Appearance.fit(raw, np.repeat([1, 2], 20))
    bundle.save(made, folder, settings, "Random weights.\n")
    return folder


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(1).integers(60, 200, (48, 48, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "stain.png")
    return tmp_path / "stain.png"


def records(folder: Path) -> list[dict[str, object]]:
    import webdataset

    shards = [str(path) for path in sorted(folder.glob("*.tar"))]
    return [json.loads(s["json"]) for s in webdataset.WebDataset(shards, shardshuffle=False)]


def test_images_have_looks_of_their_own_whatever_n_is(looking: Path, tmp_path: Path) -> None:
    run(looking, tmp_path / "two", n=2)
    run(looking, tmp_path / "three", n=3)
    two, three = records(tmp_path / "two"), records(tmp_path / "three")
    assert [r["appearance"] for r in two] == [r["appearance"] for r in three[:2]]
    assert three[0]["appearance"] != three[1]["appearance"]
    assert set(three[0]["appearance"]) == set(NAMES)  # type: ignore[call-overload]


def test_a_reference_may_be_larger_than_pil_s_limit(picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    appearance = Appearance.fit(np.random.default_rng(0).normal(1, 1, (9, len(NAMES))), np.ones(9, int))
    ((_, plain),) = read_references([picture], appearance, Path("bundle"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    ((name, look),) = read_references([picture], appearance, Path("bundle"))
    assert (name, look.tolist()) == ("stain.png", plain.tolist())


def test_a_reference_gives_its_look_to_all(
    looking: Path, picture: Path, tiny: config.Settings, labels: Labels
) -> None:
    plan = make_plan(bundle.pack(looking), looking, tiny, None, [picture])
    first, second = plan.appearance_of(0), plan.appearance_of(7)
    assert first is not None
    assert second is not None
    assert first[0] == "stain.png"
    assert np.array_equal(first[1], second[1])
    whole = plan.whole(3)
    assert whole is not None
    assert whole.context in range(1, len(labels.contexts) + 1)
    other = make_plan(bundle.pack(looking), looking, tiny, None)
    assert other.run != plan.run  # a folder of the one is not resumed by the other


def test_the_look_changes_the_image(looking: Path, tiny: config.Settings) -> None:
    plan = make_plan(bundle.pack(looking), looking, tiny, None)
    label_map = np.ones((12, 16), np.uint8)
    one, other = (plan.model("image").canvas(label_map, 0, plan.whole(k)).patch_of(0) for k in (0, 1))
    assert np.array_equal(one.latents, other.latents)
    assert not np.array_equal(one.whole.appearance, other.whole.appearance)  # type: ignore[union-attr, arg-type]


def test_what_cannot_be_a_reference(looking: Path, tiny_bundle: Path, picture: Path, tmp_path: Path) -> None:
    known = bundle.load(looking, weights=False).appearance
    with pytest.raises(UserError, match="not conditioned on an appearance"):
        read_references([picture], bundle.load(tiny_bundle, weights=False).appearance, tiny_bundle)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"broken\.png: not a readable picture"):
        read_references([tmp_path / "broken.png"], known, looking)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no picture in this folder"):
        read_references([tmp_path / "empty"], known, looking)


def test_all_patches_of_an_image_have_its_look(looking: Path, tiny: config.Settings) -> None:
    plan = make_plan(bundle.pack(looking), looking, tiny, None)
    coordinator, seen = Coordinator(plan, range(2), 2, 60), dict[int, set[bytes]]()
    sampler = Sampler(looking, tiny.sampling)
    while not coordinator.over:
        lease = coordinator.lease("w", 5)
        if lease.kind == "image":
            for piece, patch in zip(coordinator.held[lease.id].pieces, lease.work.each(), strict=True):
                assert patch.whole is not None
                assert patch.whole.appearance is not None
                look = np.append(patch.whole.appearance, patch.whole.context)
                seen.setdefault(piece.image, set()).add(look.tobytes())
        coordinator.commit(lease.id, work(sampler, lease))
    assert [len(looks) for looks in seen.values()] == [1, 1]
    assert seen[0] != seen[1]


def test_a_snapshot_goes_on_with_its_look(looking: Path, tmp_path: Path) -> None:
    one = {"n": 1, "size": "96", "lease": 1000, "sampling": {"steps": 6, "mask_steps": 2}}
    run(looking, tmp_path / "whole", **one)
    with pytest.raises(StopError):
        run(looking, tmp_path / "out", snapshot_s=0, watch=Watch(stop=7), **one)
    assert list((tmp_path / "out" / "snapshots").iterdir())
    run(looking, tmp_path / "out", **one)
    assert shard_hashes(tmp_path / "out") == shard_hashes(tmp_path / "whole")


def test_a_folder_of_one_look_takes_no_other(looking: Path, picture: Path, tmp_path: Path) -> None:
    run(looking, tmp_path / "out", n=1)
    with pytest.raises(UserError, match="appearance"):
        synthesize(looking, str(tmp_path / "out"), settings(n=2), None, True, QUIET, references=[picture])
