from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffgen.errors import UserError
from diffgen.models import bundle
from diffgen.shards import open_png
from diffgen.synthesis.plan import Plan, make_plan
from tests.synthesis.helpers import settings


def plan(folder: Path, masks: Path | None = None, **synthesis: object) -> Plan:
    return make_plan(bundle.pack(folder), folder, settings(**synthesis), masks)


def test_contexts_follow_their_shares(tiny_bundle: Path) -> None:
    made = plan(tiny_bundle)
    drawn = [made.context_of(k) for k in range(800)]
    counts = np.cumsum(drawn)
    assert np.abs(counts - 0.25 * np.arange(1, 801)).max() < 2, "of any run, however short"
    assert drawn == [plan(tiny_bundle, n=7).context_of(k) for k in range(800)]


def test_context_by_name(tiny_bundle: Path) -> None:
    assert {plan(tiny_bundle, context="skin").context_of(k) for k in range(20)} == {1}
    with pytest.raises(UserError, match=r"'liver' is unknown.*lung, skin"):
        plan(tiny_bundle, context="liver")


@pytest.mark.parametrize("size", ["30", "34", "28x64", "64x30"])
def test_impossible_sizes(tiny_bundle: Path, size: str) -> None:
    with pytest.raises(UserError, match="multiples of 4 from 32 pixels up"):
        plan(tiny_bundle, size=size)


@pytest.mark.parametrize(
    ("size", "canvas"), [("72x64", "image canvas.*18x16"), ("160x64", "mask canvas.*10x8")]
)
def test_sizes_that_diffcollage_cannot_chain(tiny_bundle: Path, size: str, canvas: str) -> None:
    with pytest.raises(UserError, match=f"sampling.cover=diffcollage: the {canvas}"):
        plan(tiny_bundle, size=size, sampling={"cover": "diffcollage"})


def test_more_steps_than_the_bundle_has(tiny_bundle: Path) -> None:
    with pytest.raises(UserError, match="1001 sampling steps"):
        plan(tiny_bundle, sampling={"mask_steps": 1001})


def test_a_bundle_without_models_says_which_command_is_missing(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "half"
    half = bundle.load(tiny_bundle)
    half.mask_unet = None
    bundle.save(half, folder, settings(), "")
    with pytest.raises(UserError, match="no mask model: diffgen train mask"):
        plan(folder)
    half.image_unet = None
    bundle.save(half, tmp_path / "none", settings(), "")
    with pytest.raises(UserError, match="no image model"):
        plan(tmp_path / "none")


def test_run_names_what_shapes_a_sample_and_nothing_else(tiny_bundle: Path) -> None:
    base = plan(tiny_bundle).run
    assert plan(tiny_bundle, n=50, samplers=2, in_flight=1, lease=1).run == base
    for change in ({"seed": 1}, {"size": "64"}, {"context": "lung"}, {"sampling": {"guidance": 1.0}}):
        assert plan(tiny_bundle, **change).run != base


@pytest.fixture
def given_masks(tmp_path: Path) -> Path:
    folder = tmp_path / "masks"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k, shape in enumerate([(32, 40), (64, 36)]):
        Image.fromarray(rng.integers(0, 5, shape).astype(np.uint8)).save(folder / f"{k}.png")
    return folder


def test_given_masks_are_taken_by_turns(tiny_bundle: Path, given_masks: Path) -> None:
    made = plan(tiny_bundle, given_masks)
    taken = [made.given(k) for k in range(4)]
    assert [(t[0], t[1].shape) for t in taken if t] == [("0.png", (32, 40)), ("1.png", (64, 36))] * 2
    assert made.context_of(0) is None


def test_each_given_mask_is_decoded_once(
    tiny_bundle: Path, given_masks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    monkeypatch.setattr(
        "diffgen.label_maps.open_png",
        lambda data, decode: decoded.append(decode) or open_png(data, decode),
    )
    assert plan(tiny_bundle, given_masks).sizes == ((32, 40), (64, 36))
    assert decoded == [True, True]


def test_samples_of_many_sizes_are_found_at_once(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """10,000 label maps are 10,000 sizes: a search through them for each sample took minutes."""
    sizes = tuple((32 * (1 + k % 3), 32 * (1 + k % 2)) for k in range(100))
    made = replace(plan(tiny_bundle), sizes=sizes, tile=32)
    num_tiles, asked = Plan.num_tiles, []
    monkeypatch.setattr(Plan, "num_tiles", lambda self, k: asked.append(k) or num_tiles(self, k))
    places = [made.where(sample) for sample in range(made.first_sample(250))]
    assert len(asked) == len(sizes)
    assert places == [(image, tile) for image in range(250) for tile in range(num_tiles(made, image))]
    assert [made.first_sample(image) for image in range(250)] == [
        places.index((image, 0)) for image in range(250)
    ]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((32, 32), 9, np.uint8), "class id 9 is unknown; the bundle has 0 to 4"),
        (np.full((32, 32, 3), (9, 0, 0), np.uint8), "classes are colours"),
        (np.zeros((30, 32), np.uint8), "multiples of 4"),
        (np.full((32, 32), 300, np.uint16), "class ids up to 255"),
    ],
)
def test_bad_masks_are_named(tiny_bundle: Path, given_masks: Path, array: np.ndarray, message: str) -> None:
    Image.fromarray(array).save(given_masks / "bad.png")
    with pytest.raises(UserError, match=rf"bad\.png.*{message}"):
        plan(tiny_bundle, given_masks)


def test_unreadable_and_absent_masks(tiny_bundle: Path, given_masks: Path, tmp_path: Path) -> None:
    (given_masks / "broken.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"broken\.png: not a readable label map"):
        plan(tiny_bundle, given_masks)
    with pytest.raises(UserError, match="no label maps"):
        plan(tiny_bundle, tmp_path / "absent")
