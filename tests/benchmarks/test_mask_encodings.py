"""What the comparison of mask encodings rests on: classes, equal cost, drawn maps, and its figures."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import mask_encodings
from diffgen import config
from diffgen.evaluation.label_maps import compare
from diffgen.models import bundle


def test_codes_become_classes_by_name(tmp_path: Path) -> None:
    path = tmp_path / "gtruth_codes.tsv"
    path.write_text("label\tGT_code\noutside_roi\t0\ndcis\t20\nplasma_cells\t10\nfat\t9\nexclude\t7\n")
    names = {code: mask_encodings.LABELS.classes[i] for code, i in mask_encodings.groups(path).items()}
    assert names == {0: "unknown", 20: "tumor", 10: "lymphocytic_infiltrate", 9: "other", 7: "unknown"}


def test_both_encodings_cost_the_same() -> None:
    steps = mask_encodings.equal_steps(1000)
    cost = {encoding: n * mask_encodings.forward_flops(encoding) for encoding, n in steps.items()}
    assert steps["bits"] == 1000
    assert cost["latents"] == pytest.approx(cost["bits"], rel=1e-3)


@pytest.mark.parametrize("encoding", mask_encodings.MODELS)
def test_both_see_the_same_label_maps(encoding: str) -> None:
    settings = config.validate(mask_encodings.tree(128.0, encoding, 10))
    assert settings.mask_model.patch_pixels == mask_encodings.SIDE
    assert settings.training.mask.batch == mask_encodings.BATCH


def test_a_map_does_not_depend_on_how_many_are_drawn(tiny_bundle: Path, tiny: config.Settings) -> None:
    made = bundle.load(tiny_bundle).to("cpu")
    few, many = (mask_encodings.draw(made, tiny, n) for n in (2, 3))
    assert [m.shape for m in many] == [(8, 8)] * 3
    np.testing.assert_array_equal(few, many[:2])
    assert len({m.tobytes() for m in many}) > 1
    assert max(m.max() for m in many) < len(made.labels)


def test_a_row_is_the_mean_of_its_comparisons() -> None:
    classes = len(mask_encodings.LABELS)
    half = np.ones((8, 8), np.uint8)
    half[:4] = 2
    real, one = [half], [np.ones((8, 8), np.uint8)]
    right, wrong = compare(real, real, classes, 8.0), compare(real, one, classes, 8.0)
    row = mask_encodings.row("two", [right, wrong], seconds=3.0)
    assert row["largest_share_error"] == pytest.approx(0.25)  # of 0 and 0.5
    assert row["boundary_ratio"] == pytest.approx(0.5)  # of 1 and 0
    assert row["seconds"] == 3.0
    table = mask_encodings.tabulate([row, mask_encodings.row("none", [right])], "a title")
    assert [list(column.cells) for column in table.columns][:2] == [["two", "none"], ["25.0%", "0.0%"]]


def test_maps_side_by_side(tmp_path: Path) -> None:
    maps = [np.full((64, 64), k % 6, np.uint8) for k in range(8)]
    assert mask_encodings.mosaic(maps).shape == (2 * 66, 4 * 66, 3)
    mask_encodings.picture(tmp_path / "a.png", {128.0: {"real": maps, "bits": maps, "latents": maps}})
    assert (tmp_path / "a.png").stat().st_size > 5000


def test_the_ceiling_is_real_against_real_and_falls_with_the_number_of_maps() -> None:
    rng = np.random.default_rng(0)
    real = [np.full((4, 4), rng.choice([1, 2], p=[0.3, 0.7]), np.uint8) for _ in range(300)]
    few, many = (
        np.mean([mask_encodings.ceiling(real, n, 4, 8.0, rng).largest_share_error for _ in range(10)])
        for n in (5, 150)
    )
    assert 2 * many < few
    with pytest.raises(ValueError, match="leave none"):
        mask_encodings.ceiling(real, 300, 4, 8.0, rng)
