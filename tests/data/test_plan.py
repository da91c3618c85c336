import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffgen import config
from diffgen.data.classes import Classes
from diffgen.data.plan import PatchBox, PatchLayout, grid, integral, lay, plan_patches, split, tissue_share
from diffgen.data.report import Report
from diffgen.data.scan import Scan
from diffgen.data.sources import Source

LAYOUT = PatchLayout(stored=64, least=32, multiple=4, step=32, mask_side=96, mask_step=24, min_tissue=0.25)
SIDES = st.integers(32, 400)


def scanned(name: str, width: int, height: int, tissue: np.ndarray, group: str = "") -> Scan:
    source = Source(name, name, "", "", group=group)
    return Scan(source, (0.5, 0.5), False, width, height, tissue)


def random_scan(width: int, height: int, seed: int = 0, name: str = "a") -> Scan:
    rows, columns = max(1, height // 16), max(1, width // 16)
    tissue = np.random.default_rng(seed).random((rows, columns)) < 0.6
    tissue[rows // 2, columns // 2] = True
    return scanned(name, width, height, tissue)


def meet(a: PatchBox, b: PatchBox) -> bool:
    return a.x < b.x + b.width and b.x < a.x + a.width and a.y < b.y + b.height and b.y < a.y + a.height


@settings(max_examples=60)
@given(
    sizes=st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=14),
    share=st.floats(0, 0.5),
    seed=st.integers(0, 99),
)
def test_no_pixel_is_on_both_sides(sizes: list[tuple[int, int]], share: float, seed: int) -> None:
    scans = [random_scan(w, h, seed + i, f"s{i}") for i, (w, h) in enumerate(sizes)]
    for item, parts in zip(scans, split(scans, share, LAYOUT.least), strict=True):
        patches = [*lay(item, parts, LAYOUT, "image"), *lay(item, parts, LAYOUT, "mask")]
        sides = {side: [p for p in patches if p.split == side] for side in ("train", "test")}
        assert not any(meet(a, b) for a, b in itertools.product(sides["train"], sides["test"]))
        for p in patches:
            assert p.x >= 0
            assert p.y >= 0
            assert p.x + p.width <= item.width
            assert p.y + p.height <= item.height


@given(length=st.integers(1, 500), side=st.integers(1, 200), step=st.integers(1, 200))
def test_a_grid_reaches_both_ends(length: int, side: int, step: int) -> None:
    starts = grid(length, side, step)
    if side > length:
        assert starts == []
    else:
        assert starts[0] == 0
        assert starts[-1] == length - side
        assert all(0 < b - a <= step for a, b in itertools.pairwise(starts))


def test_many_sources_go_whole_to_one_side() -> None:
    scans = [random_scan(200, 100, name=f"s{i}") for i in range(20)]
    parts = split(scans, 0.1, 32)
    assert sum("test" in p for p in parts) == 2
    assert all(list(p.values()) == [(0, 0, 200, 100)] for p in parts)
    turned = split(scans[::-1], 0.1, 32)[::-1]
    assert turned == parts  # by name, not by place


def test_few_sources_are_cut_across_their_longer_axis() -> None:
    full = scanned("a", 1000, 400, np.ones((25, 62), bool))
    assert split([full], 0.1, 32) == [{"train": (0, 0, 900, 400), "test": (900, 0, 100, 400)}]
    assert split([full], 0.0, 32) == [{"train": (0, 0, 1000, 400)}]


def test_few_small_sources_go_whole() -> None:
    scans = [scanned(f"s{i}", 64, 64, np.ones((4, 4), bool)) for i in range(3)]
    assert sum("test" in p for p in split(scans, 0.1, 32)) == 1
    assert split(scans[:1], 0.1, 32) == [{"train": (0, 0, 64, 64)}]


def test_a_small_image_gives_one_smaller_patch() -> None:
    full = scanned("a", 50, 61, np.ones((4, 3), bool))
    parts = {"train": (0, 0, 50, 61)}
    assert {(p.width, p.height) for p in lay(full, parts, LAYOUT, "image")} == {(48, 60)}
    assert lay(full, parts, LAYOUT, "mask") == []


def test_patches_on_glass_are_not_kept() -> None:
    tissue = np.zeros((16, 16), bool)
    tissue[:, 8:] = True
    item = scanned("a", 256, 256, tissue)
    assert {p.x for p in lay(item, {"train": (0, 0, 256, 256)}, LAYOUT, "image")} == {96, 128, 160, 192}
    assert tissue_share(integral(tissue), item, PatchBox("image", "train", 96, 0, 64, 64)) == 0.5


def test_a_group_stays_on_one_side() -> None:
    whole = np.ones((4, 4), bool)
    scans = [scanned(f"s{i}", 64, 64, whole, group=f"case {i // 4}") for i in range(40)]
    sides = [next(iter(parts)) for parts in split(scans, 0.2, 64)]
    assert sides.count("test") == 8
    assert all(len(set(sides[i : i + 4])) == 1 for i in range(0, 40, 4))


@pytest.mark.parametrize(("encoding", "pixels"), [("bits", 16), ("latents", 16 * 8)])
def test_mask_patches_are_stored_in_mask_pixels(encoding: str, pixels: int) -> None:
    """A patch of 16 latent pixels of a label map is one of 128 mask pixels (paper, Table 6)."""
    mask_model = {"patch": 16, "attention": [8], "encoding": encoding, "factor": 8}
    layout = PatchLayout.of(config.validate({"mask_model": mask_model}))
    assert layout.mask_side == pixels * 16
    assert layout.mask_step == pixels // 4 * 16


@pytest.mark.parametrize("context", ["fixed", "wide"])
@pytest.mark.parametrize(("width", "height"), [(150, 400), (500, 900), (300, 300), (300, 2000)])
def test_every_crop_of_training_fits_in_every_image_patch(context: str, width: int, height: int) -> None:
    """With wide crops a test part of less than two patches is none: training would draw from it in vain."""
    tree = config.load(None, ["image_model.patch=16", f"image_model.context={context}"])
    scan = Scan(Source("a", "a", "", ""), (0.5, 0.5), False, width, height, np.ones((8, 8), bool))
    plans = plan_patches([scan], tree, Classes(), Report(Path("out")))
    patches = [patch for plan in plans for patch in plan.patches]
    assert all(min(patch.width, patch.height) >= tree.widest_patch_px for patch in patches)
    assert tree.widest_patch_px == (128 if context == "wide" else 64)
    assert any(patch.split == "test" for patch in patches) == (0.1 * height >= tree.widest_patch_px)
