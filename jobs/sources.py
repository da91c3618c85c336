"""Data sets as they come → what `diffgen prepare` reads: pictures with their label maps, a table of contexts.

A recipe that is not here takes its folder as it is.
"""

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from diffgen.errors import UserError
from jobs import ebhi

TABLE = "sources.csv"


def pairs(folder: Path, out: Path) -> int:
    """NuInsSeg: images/ and masks/ of the same names, as pictures with `_mask` files beside them."""
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    found = sorted((folder / "images").iterdir())
    for path in found:
        with Image.open(path) as image:
            image.convert("RGB").save(out / "pictures" / f"{path.stem}.png", compress_level=1)
        with Image.open(folder / "masks" / f"{path.stem}.png") as mask:
            mask.save(out / "pictures" / f"{path.stem}_mask.png")
    return len(found)


CONVERT: dict[str, Callable[[Path, Path], int]] = {"tissue": ebhi.convert, "nuclei": pairs}


def pictures(recipe: str, source: Path, out: Path) -> None:
    """Write `out`/pictures, and `out`/sources.csv where there are contexts; `UserError` without any."""
    convert = CONVERT.get(recipe)
    if convert is None:
        return
    if not (source / "images").is_dir() or not (source / "masks").is_dir():
        raise UserError(f"{source}: the recipe {recipe} wants a folder with images/ and masks/ in it")
    if not convert(source, out):
        raise UserError(f"{source}/images holds no pictures")


def prepared_from(out: Path, source: Path) -> tuple[Path, Path | None]:
    """(folder that `diffgen prepare` reads, table of contexts or None)."""
    folder = out / "pictures" if (out / "pictures").is_dir() else source
    table = next((path for path in (out / TABLE, source / TABLE) if path.exists()), None)
    return folder, table
