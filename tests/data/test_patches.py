import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from diffgen.data.patches import Extent, PatchBox, PatchLayout, grid, integral, lay, split, tissue_share

LAYOUT = PatchLayout(stored=64, least=32, multiple=4, step=32, mask_side=96, mask_step=24, min_tissue=0.25)
SIDES = st.integers(32, 400)


def extent(width: int, height: int, seed: int = 0, name: str = "a") -> Extent:
    rows, columns = max(1, height // 16), max(1, width // 16)
    tissue = np.random.default_rng(seed).random((rows, columns)) < 0.6
    tissue[rows // 2, columns // 2] = True
    return Extent(name, width, height, tissue)


def meet(a: PatchBox, b: PatchBox) -> bool:
    return a.x < b.x + b.width and b.x < a.x + a.width and a.y < b.y + b.height and b.y < a.y + a.height


@settings(max_examples=60)
@given(
    sizes=st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=14),
    share=st.floats(0, 0.5),
    seed=st.integers(0, 99),
)
def test_no_pixel_is_on_both_sides(sizes: list[tuple[int, int]], share: float, seed: int) -> None:
    extents = [extent(w, h, seed + i, f"s{i}") for i, (w, h) in enumerate(sizes)]
    for item, parts in zip(extents, split(extents, share, LAYOUT.least), strict=True):
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
    extents = [extent(200, 100, name=f"s{i}") for i in range(20)]
    parts = split(extents, 0.1, 32)
    assert sum("test" in p for p in parts) == 2
    assert all(list(p.values()) == [(0, 0, 200, 100)] for p in parts)
    turned = split(extents[::-1], 0.1, 32)[::-1]
    assert turned == parts  # by name, not by place


def test_few_sources_are_cut_across_their_longer_axis() -> None:
    full = Extent("a", 1000, 400, np.ones((25, 62), bool))
    assert split([full], 0.1, 32) == [{"train": (0, 0, 900, 400), "test": (900, 0, 100, 400)}]
    assert split([full], 0.0, 32) == [{"train": (0, 0, 1000, 400)}]


def test_few_small_sources_go_whole() -> None:
    extents = [Extent(f"s{i}", 64, 64, np.ones((4, 4), bool)) for i in range(3)]
    assert sum("test" in p for p in split(extents, 0.1, 32)) == 1
    assert split(extents[:1], 0.1, 32) == [{"train": (0, 0, 64, 64)}]


def test_a_small_image_gives_one_smaller_patch() -> None:
    full = Extent("a", 50, 61, np.ones((4, 3), bool))
    parts = {"train": (0, 0, 50, 61)}
    assert {(p.width, p.height) for p in lay(full, parts, LAYOUT, "image")} == {(48, 60)}
    assert lay(full, parts, LAYOUT, "mask") == []


def test_patches_on_glass_are_not_kept() -> None:
    tissue = np.zeros((16, 16), bool)
    tissue[:, 8:] = True
    item = Extent("a", 256, 256, tissue)
    assert {p.x for p in lay(item, {"train": (0, 0, 256, 256)}, LAYOUT, "image")} == {96, 128, 160, 192}
    assert tissue_share(integral(tissue), item, PatchBox("image", "train", 96, 0, 64, 64)) == 0.5


def test_a_group_stays_on_one_side() -> None:
    whole = np.ones((4, 4), bool)
    extents = [Extent(f"s{i}", 64, 64, whole, group=f"case {i // 4}") for i in range(40)]
    sides = [next(iter(parts)) for parts in split(extents, 0.2, 64)]
    assert sides.count("test") == 8
    assert all(len(set(sides[i : i + 4])) == 1 for i in range(0, 40, 4))
