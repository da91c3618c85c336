"""Real or drawn? Pairs of crops to look at, one of each, without a tell: a page, and sheets to print.

python jobs/blind_test.py data out                        # blind/: open index.html, and choose
python jobs/blind_test.py data out --guesses ABBA…        # or look at its sheets, and count

`data` is what `diffgen prepare` wrote (of it the held-out sources) or a folder of real images, `out` what
`diffgen synthesize` wrote. Both crops of a pair are of one side and, where contexts are known, of one
context, show tissue in at least a quarter of their pixels, and were encoded alike; files hold no names and
no metadata.
"""

import argparse
import base64
import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from string import Template

import numpy as np
import pyarrow.fs
import pyarrow.parquet as pq
from PIL import Image, ImageDraw
from scipy.stats import binomtest

from diffgen.data.tissue import tissue_mask
from diffgen.errors import UserError
from diffgen.evaluation.images import Images, Region, open_images, splits
from diffgen.labels import Picture
from diffgen.urls import open_url

QUALITY = 90
"""Of the JPEGs: sources were such, and synthetic images should not stand out by having been none."""
PAGE = Path(__file__).with_suffix(".html")
SHOWN = 288  # px of a crop's side on the page and the sheets
PER_SHEET = 12
LEAST_TISSUE = 0.25
TRIES = 20
"""Regions that are looked at per crop, before one with too little tissue is taken."""

Pair = tuple[Picture, Picture]
"""Real, drawn."""


def paired(real: Images, drawn: Images, side: int, count: int, rng: np.random.Generator) -> Iterator[Pair]:
    """`count` pairs of crops; each region is used once, sources in turn. `UserError` where they run out."""
    of_real, of_drawn = (_shuffled(images.regions(side), rng) for images in (real, drawn))
    contexts = drawn_contexts(drawn)
    for _ in range(count):
        one, picture = _next(drawn, of_drawn, of_drawn)
        context = contexts.get(one.source)
        alike = [region for region in of_real if context and real.contexts.get(region.source) == context]
        yield _next(real, of_real, alike or of_real)[1], picture


def _shuffled(regions: Sequence[Region], rng: np.random.Generator) -> list[Region]:
    return [regions[k] for k in rng.permutation(len(regions))]


def drawn_contexts(images: Images) -> dict[str, str]:
    """Source → context of what `diffgen synthesize` wrote; of other images there is none."""
    filesystem, folder = open_url(images.where)
    if filesystem.get_file_info(f"{folder}/manifest.parquet").type == pyarrow.fs.FileType.NotFound:
        return {}
    table = pq.read_table(f"{folder}/manifest.parquet", filesystem=filesystem, columns=["index", "context"])
    return {f"{index:09d}": context for index, context in zip(*table.to_pydict().values(), strict=True)}


def _next(images: Images, left: list[Region], some: list[Region]) -> tuple[Region, Picture]:
    """The first of `some` that shows tissue; it and those before it leave what is `left`."""
    for region in some[:TRIES]:
        left.remove(region)
        picture = images.read(region)[0]
        if tissue_mask(picture, images.mpp or 1.0).mean() >= LEAST_TISSUE:
            return region, picture
    raise UserError(f"{images.where}: too few crops show tissue: fewer --pairs, or a smaller --side")


def encoded(picture: Picture) -> bytes:
    """A JPEG of `SHOWN` px."""
    file = io.BytesIO()
    enlarged = Image.fromarray(picture).resize((SHOWN, SHOWN), Image.Resampling.BICUBIC)
    enlarged.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def sheets(pairs: Sequence[tuple[bytes, bytes]]) -> Iterator[Image.Image]:
    """Pairs in rows, numbered from 1, A on the left."""
    across, gap, title = 3, 12, 18
    for first in range(0, len(pairs), PER_SHEET):
        some = pairs[first : first + PER_SHEET]
        rows = -(-len(some) // across)
        wide = 2 * SHOWN + 2 + gap
        sheet = Image.new("RGB", (across * wide, rows * (SHOWN + title + gap)), "white")
        draw = ImageDraw.Draw(sheet)
        for k, both in enumerate(some):
            left, top = k % across * wide, k // across * (SHOWN + title + gap)
            draw.text((left, top + 2), f"{first + k + 1}   A | B", fill="black")
            for at, crop in enumerate(both):
                sheet.paste(Image.open(io.BytesIO(crop)), (left + at * (SHOWN + 2), top + title))
        yield sheet


def page(pairs: Sequence[tuple[bytes, bytes]], key: str) -> str:
    """One file that loads nothing; it counts by itself, and holds the key where no one sees it by chance."""
    rows = "\n".join(
        f"<p>{k}<br>" + "".join(
            f'<button><img src="data:image/jpeg;base64,{base64.b64encode(crop).decode()}" alt="{letter}">'
            "</button>"
            for letter, crop in zip("AB", both, strict=True)
        ) + "</p>"
        for k, both in enumerate(pairs, 1)
    )  # fmt: skip
    hidden = base64.b64encode(key.encode()).decode()
    return Template(PAGE.read_text("utf-8")).substitute(rows=rows, key=hidden)


def counted(guesses: str, key: str) -> str:
    """How often someone was right, and whether that may be chance. `UserError` where letters are missing."""
    given = "".join(guesses.upper().split())
    if len(given) != len(key) or set(given) - set("AB-"):
        raise UserError(f"--guesses: {len(key)} letters A, B or - (no idea), not {len(given)}")
    said = [(a, b) for a, b in zip(given, key, strict=True) if a != "-"]
    if not said:
        raise UserError("--guesses: nothing was guessed")
    test = binomtest(sum(a == b for a, b in said), len(said), 0.5)
    low, high = test.proportion_ci(method="exact")
    wrong = " ".join(str(k) for k, (a, b) in enumerate(zip(given, key, strict=True), 1) if a not in (b, "-"))
    return (
        f"{test.k} of {test.n} right, {test.statistic:.0%} [{low:.0%}, {high:.0%}] (half by chance, "
        f"p = {test.pvalue:.2g}); taken for the other: {wrong or 'none'}"
    )


def main(words: Sequence[str]) -> None:
    head, _, rest = str(__doc__).partition("\n")
    parser = argparse.ArgumentParser(
        description=head, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("real", help="prepared data, or a folder of real images")
    parser.add_argument("drawn", help="what diffgen synthesize wrote")
    parser.add_argument(
        "--to", type=Path, default=Path("blind"), help="folder that is written (default: blind)"
    )
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--side", type=int, default=192, help="of a crop, in pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guesses", help="count these letters (A, B, or - for no idea), make nothing")
    given = parser.parse_args(words)
    key_file = given.to / "key.json"
    if given.guesses is not None:
        if not key_file.exists():
            raise UserError(f"{given.to} holds no blind test yet")
        print(counted(given.guesses, json.loads(key_file.read_text())["drawn"]))
        return
    make(given.real, given.drawn, given.to, given.pairs, given.side, given.seed)
    print(f"{given.to}/index.html: open it; or sheet-*.png, and --guesses; the key is in {key_file}")


def make(real: str, drawn: str, to: Path, count: int, side: int, seed: int) -> Mapping[str, str]:
    """Write page, sheets and key; `UserError` where a set has no crops of that side."""
    rng = np.random.default_rng(seed)
    images = open_images(real, "test" if splits(real) else None), open_images(drawn)
    key, pairs = "", []
    for pair in paired(*images, side, count, rng):
        swapped = bool(rng.integers(2))
        key += "A" if swapped else "B"
        real_one, drawn_one = map(encoded, pair)
        pairs.append((drawn_one, real_one) if swapped else (real_one, drawn_one))
    to.mkdir(parents=True, exist_ok=True)
    (to / "index.html").write_text(page(pairs, key), encoding="utf-8")
    for number, sheet in enumerate(sheets(pairs), 1):
        sheet.save(to / f"sheet-{number}.png")
    answers = {"drawn": key, "real images": real, "drawn images": drawn}
    (to / "key.json").write_text(json.dumps(answers, indent=1) + "\n")
    return answers


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
