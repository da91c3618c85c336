"""The data set card says what the manifest says, its code runs, and the preview repeats."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from PIL import Image

from diffgen.labels import Labels
from diffgen.shards import pack
from diffgen.synthesis.card import BOX, GAP, MARGIN, PREVIEW_SAMPLES, dataset_card, preview

LABELS = Labels(("unknown", "tumour|core", "stroma"), ("luminal", "basal"), (0.5, 0.5))
RUN = {"seed": 7, "bundle": "0123abcd", "sampling": {"steps": 20}}


def table(num: int = 3, shards: int = 2) -> Any:
    return pa.table(
        {
            "shard": [f"shard-{i * shards // num:06d}" for i in range(num)],
            "index": list(range(num)),
            "width": [64] + [32] * (num - 1),
            "height": [32] * num,
            "context": ["luminal"] + ["basal"] * (num - 1),
            "class_shares": [[0.0, 1.0, 0.0]] + [[0.5, 0.0, 0.5]] * (num - 1),
        }
    )


def picture(seed: int, height: int, width: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], str]:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return image, np.full((height, width), seed % 3, np.uint8), f"{seed:09d}"


def test_front_matter_and_counts() -> None:
    card = dataset_card(RUN, table(), LABELS)
    _, head, body = card.split("---\n", 2)
    front = yaml.safe_load(head)
    assert front["license"] == "other"
    assert front["tags"] == ["histopathology", "synthetic", "webdataset"]
    assert front["size_categories"] == ["n<1K"]
    assert front["configs"] == [{"config_name": "default", "data_files": "shard-*.tar"}]
    assert "**3 synthetic images** of 32 × 32 and 64 × 32 pixels" in body
    assert "in 2 shards" in body
    assert "`0123abcd`" in body
    assert "basal (2), luminal (1)" in body
    settings = re.search(r"```yaml\n(.*?)```", body, re.DOTALL)
    assert settings
    assert yaml.safe_load(settings[1]) == RUN
    written = "shard-000000.tar manifest.parquet manifest/ labels.json run.json settings.yaml"
    assert all(f"| `{name}`" in body for name in written.split())


def test_given_label_maps_have_no_context() -> None:
    manifest = table()
    column = manifest.schema.get_field_index("context")
    card = dataset_card(RUN, manifest.set_column(column, "context", pa.nulls(3, pa.string())), LABELS)
    assert "Contexts:" not in card
    assert "for a context" not in card
    assert "sampled for a label map that was given" in card
    assert "\n\n\n" not in card
    assert "\n\n\n" not in dataset_card(RUN, table(), LABELS)


def test_given_appearances_are_named() -> None:
    looks = [[f"{name}.png", 0.5, -1.0] for name in "abcde"]
    assert "\nAppearance: as in a.png.\n\n" in dataset_card(RUN | {"appearance": looks[:1]}, table(), LABELS)
    card = dataset_card(RUN | {"appearance": looks}, table(), LABELS)
    assert "as in a.png, b.png, c.png, d.png, …, by turns." in card
    assert "\n\n\n" not in card
    assert "Appearance:" not in dataset_card(RUN | {"appearance": None}, table(), LABELS)


def test_class_shares_weigh_pixels() -> None:
    card = dataset_card(RUN, table(), LABELS)
    # The images have 2048, 1024 and 1024 pixels.
    assert "| 0 | unknown | `#000000` | 25.0% |" in card
    assert re.search(r"\| 1 \| tumour\\\|core \| `#[0-9a-f]{6}` \| 50\.0% \|", card)
    assert re.search(r"\| 2 \| stroma \| `#[0-9a-f]{6}` \| 25\.0% \|", card)


@pytest.mark.parametrize(("num", "category"), [(999, "n<1K"), (1000, "1K<n<10K"), (10_000, "10K<n<100K")])
def test_size_category(num: int, category: str) -> None:
    assert f"- {category}\n" in dataset_card(RUN, table(num), LABELS)


@pytest.mark.parametrize("shards", [1, 2])
def test_code_in_the_card_runs(shards: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.search(r"```python\n(.*?)```", dataset_card(RUN, table(2, shards), LABELS), re.DOTALL)
    assert code
    for k in range(shards):
        sink, mask_sink = io.BytesIO(), io.BytesIO()
        image, mask, key = picture(k + 1, 8, 6)
        Image.fromarray(image).save(sink, "PNG")
        Image.fromarray(mask).save(mask_sink, "PNG")
        members = [(f"{key}.png", sink.getvalue()), (f"{key}.mask.png", mask_sink.getvalue())]
        pack(tmp_path / f"shard-{k:06d}.tar", members)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code[1], names)
    np.testing.assert_array_equal(names["image"], picture(shards, 8, 6)[0])
    np.testing.assert_array_equal(names["mask"], picture(shards, 8, 6)[1])
    # What the card warns of is so.
    import webdataset

    decoded = next(iter(webdataset.WebDataset("shard-000000.tar", shardshuffle=False).decode("rgb")))
    assert decoded["mask.png"].shape == (8, 6, 3)


def test_preview_repeats_and_takes_six() -> None:
    taken = []

    def samples() -> Any:
        for seed in range(20):
            taken.append(seed)
            yield picture(seed, 40 + 8 * seed, 64)

    first = preview(samples(), LABELS)
    assert len(taken) == PREVIEW_SAMPLES  # the others are never read
    assert first == preview([picture(seed, 40 + 8 * seed, 64) for seed in range(6)], LABELS)
    assert first != preview([picture(seed, 40 + 8 * seed, 64) for seed in range(5)], LABELS)


def test_preview_paints_class_colours_only() -> None:
    image, mask, key = picture(1, 33, 17)
    mask[:, :9], mask[:, 9:] = 0, 2  # between them a blend would find class 1
    sheet = np.asarray(Image.open(io.BytesIO(preview([(image, mask, key)], LABELS))))
    width = round(BOX * 17 / 33)
    painted = sheet[MARGIN : MARGIN + BOX, MARGIN + width + GAP : MARGIN + 2 * width + GAP]
    assert {tuple(c) for c in painted.reshape(-1, 3).tolist()} == {LABELS.colours[0], LABELS.colours[2]}
    legend = {tuple(c) for c in sheet[MARGIN + BOX + 30 :].reshape(-1, 3).tolist()}
    assert {LABELS.colours[0], LABELS.colours[2]} <= legend
    assert LABELS.colours[1] not in legend


def test_preview_of_extreme_shapes() -> None:
    labels = Labels(("unknown", *(f"a class with a long name {i}" for i in range(30))))
    mask = (np.arange(2000, dtype=np.uint16) % 31).astype(np.uint8)[None].repeat(2, 0)
    data = preview([(np.zeros((2, 2000, 3), np.uint8), mask, "000000000")], labels)
    sheet = Image.open(io.BytesIO(data))
    assert sheet.width == 2 * BOX + GAP + 2 * MARGIN
    assert sheet.height > 8 * 24  # the legend took the lines it needs
