"""How a synthesised data set presents itself: `README.md` for people and the Hub, `preview.png` for the eye.

Invariants: both depend on the samples and on the run's settings alone, so a second run gives the same
bytes; and every number in the card is counted from the manifest, none is promised by the settings.
"""

import io
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image, ImageDraw, ImageFont

from diffgen.labels import LabelMap, Labels, Picture

PREVIEW_SAMPLES = 6
BOX = 320  # longest side of a picture in the preview, in pixels
GAP = 6
MARGIN = 28
INK = (38, 38, 46)
FAINT = (120, 120, 132)
PAPER = (245, 245, 248)  # not white: glass is, and an image should end where it ends

CARD = Path(__file__).parent / "templates" / "dataset_card.md"

SAMPLED = "a label map is sampled for a context, then an image for the label map"
GIVEN = "an image is sampled for a label map that was given (`given_label_map` in `KEY.json`)"


def dataset_card(run: Mapping[str, Any], manifest: Any, labels: Labels) -> str:
    """The card in the form of the Hugging Face Hub; `manifest` is the merged table, at least one row."""
    columns = manifest.to_pydict()
    num = manifest.num_rows
    num_shards = len(set(columns["shard"]))
    sides = sorted(set(zip(columns["width"], columns["height"], strict=True)))
    sizes = [f"{width} × {height}" for width, height in sides[:4]] + ["…"] * (len(sides) > 4)
    pixels = np.multiply(columns["width"], columns["height"], dtype=np.float64)
    shares = np.average(np.asarray(columns["class_shares"]), axis=0, weights=pixels)
    contexts = Counter(name for name in columns["context"] if name is not None)  # none: maps were given
    return CARD.read_text("utf-8").format(
        category=_size_category(num),
        num=f"{num:,}",
        images="image" if num == 1 else "images",
        sizes=" and ".join(sizes) + " pixels",
        shards="1 shard" if num_shards == 1 else f"{num_shards} shards",
        bundle=run["bundle"],
        tile="; its place in the parent image, of which it is a " + ("tile" if run.get("tile") else "region")
        if run.get("tile") or run.get("region")
        else "",
        classes="\n".join(
            f"| {i} | {_cell(name)} | `#{bytes(labels.colours[i]).hex()}` | {share:.1%} |"
            for i, (name, share) in enumerate(zip(labels.classes, shares, strict=True))
        ),
        contexts=(f"\nContexts: {_counted(contexts)}.\n" if contexts else "") + _stained(run),
        origin=SAMPLED if contexts else GIVEN,
        run=yaml.safe_dump(dict(run), sort_keys=True, allow_unicode=True),
    )


def _size_category(num: int) -> str:
    bounds = [(10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M")]
    return next((name for bound, name in bounds if num < bound), "1M<n<10M")


def _counted(contexts: Mapping[str, int]) -> str:
    return ", ".join(f"{_cell(name)} ({contexts[name]})" for name in sorted(contexts))


def _stained(run: Mapping[str, Any]) -> str:
    """Whose appearance the images were given; nothing where it was drawn (`KEY.json` has each one's)."""
    names = [_cell(name) for name, *_ in run.get("appearance") or []]
    listed = ", ".join(names[:4]) + ", …" * (len(names) > 4)
    return f"\nAppearance: as in {listed}{', by turns' * (len(names) > 1)}.\n" if names else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def preview(samples: Iterable[tuple[Picture, LabelMap, str]], labels: Labels) -> bytes:
    """Up to six (image, label map, key) side by side, with a legend → PNG; same samples, same bytes.

    Taken one after the other, so that an iterator keeps only one large image in memory.
    """
    pairs, present = list[tuple[Image.Image, Image.Image, str]](), set[int]()
    for image, label_map, key in itertools.islice(samples, PREVIEW_SAMPLES):
        height, width = label_map.shape
        fitted = _fit(width, height)
        picture = Image.fromarray(image).resize(fitted, Image.Resampling.LANCZOS, reducing_gap=3)
        # By nearest, and before painting: a blend of two classes' colours would be a third class.
        ids = Image.fromarray(label_map).resize(fitted, Image.Resampling.NEAREST)
        painted = Image.fromarray(labels.paint(np.asarray(ids)))
        pairs.append((picture, painted, f"{key}   {width} × {height}"))
        present.update(int(i) for i in np.unique(label_map))
    return _sheet(pairs, [(labels.classes[i], labels.colours[i]) for i in sorted(present)])


def _fit(width: int, height: int) -> tuple[int, int]:
    scale = BOX / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _sheet(
    pairs: list[tuple[Image.Image, Image.Image, str]], legend: list[tuple[str, tuple[int, int, int]]]
) -> bytes:
    """Pictures with their painted label maps in rows of two pairs, the legend under them."""
    import matplotlib  # late: half a second, which each sampler and coordinator would take at its start

    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"  # the same letters on every machine
    small = ImageFont.truetype(str(fonts / "DejaVuSans.ttf"), 13)
    in_row = min(2, max(1, len(pairs)))
    pair_width, caption = 2 * BOX + GAP, 26
    width = in_row * pair_width + (in_row + 1) * MARGIN
    rows = [pairs[i : i + in_row] for i in range(0, len(pairs), in_row)]
    row_heights = [max(picture.height for picture, _, _ in row) + caption for row in rows]
    cell = 44 + max(round(small.getlength(name)) for name, _ in legend)  # of the legend
    columns = max(1, (width - 2 * MARGIN) // cell)
    legend_height = 24 * -(-len(legend) // columns)
    height = MARGIN + sum(h + MARGIN // 2 for h in row_heights) + legend_height + MARGIN
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    top = MARGIN
    for row, row_height in zip(rows, row_heights, strict=True):
        for column, (picture, painted, title) in enumerate(row):
            left = MARGIN + column * (pair_width + MARGIN)
            sheet.paste(picture, (left, top))
            sheet.paste(painted, (left + picture.width + GAP, top))
            draw.text((left, top + picture.height + 6), title, font=small, fill=FAINT)
        top += row_height + MARGIN // 2
    for k, (name, colour) in enumerate(legend):
        x, y = MARGIN + k % columns * cell, top + k // columns * 24
        draw.rectangle((x, y + 2, x + 13, y + 15), fill=colour, outline=FAINT)
        draw.text((x + 20, y + 1), name, font=small, fill=INK)
    sink = io.BytesIO()
    sheet.save(sink, "PNG", optimize=False, compress_level=6)
    return sink.getvalue()
