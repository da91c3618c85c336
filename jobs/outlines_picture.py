"""README's picture of outlines and what `diffgen prepare` makes of them, from a slide without annotations.

python jobs/outlines_picture.py SLIDE [FOLDER]        # docs/images by default; half a minute

The outlines are traced around dense nuclei by a threshold, and written as QuPath writes them.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter
from skimage.color import rgb2hed
from skimage.measure import approximate_polygon, find_contours

from diffgen.data.slides import Slide, open_slide

ROOT = Path(__file__).resolve().parent.parent
UM = 4.0
SMOOTH = 5.0  # pixels of 4 µm
LEAST = 60  # corners along the contour, below which a region is left out
COLOURS = {"epithelium": "#c80000", "stroma": "#96c896"}
HEIGHT = 720


def traced(slide: Slide) -> list[tuple[str, np.ndarray]]:
    """(class, corners (n, 2) in level-0 pixels): the stroma all over, and on it regions dense in nuclei."""
    picture = slide.read(0, 0, *slide.size(UM), UM)
    dense = gaussian_filter(rgb2hed(picture)[..., 0], SMOOTH)
    scale = np.array([UM / slide.mpp[0], UM / slide.mpp[1]])
    width, height = slide.pixels.size
    found = [("stroma", np.array([(0, 0), (width, 0), (width, height), (0, height), (0, 0)], float))]
    for contour in find_contours(np.pad(dense, 1), np.quantile(dense, 0.75)):
        if len(contour) >= LEAST:
            corners = approximate_polygon(contour, 1.0)[:, ::-1] - 0.5
            found.append(("epithelium", corners.clip(0, dense.shape[::-1]) * scale))
    return found


def as_geojson(shapes: list[tuple[str, np.ndarray]]) -> str:
    features = []
    for name, corners in shapes:
        colour = [round(255 * part) for part in to_rgb(COLOURS[name])]
        properties = {"objectType": "annotation", "classification": {"name": name, "color": colour}}
        geometry = {"type": "Polygon", "coordinates": [corners.round(1).tolist()]}
        features.append({"type": "Feature", "geometry": geometry, "properties": properties})
    return json.dumps({"type": "FeatureCollection", "features": features})


def drawn(slide: Slide, shapes: list[tuple[str, np.ndarray]]) -> Image.Image:
    """The slide with the outlines on it."""
    um = slide.pixels.size[1] * slide.mpp[1] / HEIGHT
    picture = Image.fromarray(slide.read(0, 0, *slide.size(um), um))
    pen = ImageDraw.Draw(picture)
    for name, corners in shapes:
        points = [(x * slide.mpp[0] / um, y * slide.mpp[1] / um) for x, y in corners]
        pen.line(points, fill=COLOURS[name], width=3, joint="curve")
    return picture


def main() -> None:
    source = Path(sys.argv[1])
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "docs" / "images"
    slide, _ = open_slide(str(source))
    shapes = traced(slide)
    with tempfile.TemporaryDirectory() as work:
        there = Path(work, "slides")
        there.mkdir()
        (there / source.name).symlink_to(source.resolve())
        (there / f"{source.stem}.geojson").write_text(as_geojson(shapes))
        line = [
            sys.executable,
            "-m",
            "diffgen",
            "prepare",
            there,
            "-c",
            "demo",
            "--out",
            Path(work, "data"),
            "--inline",
        ]
        line += ["--labels", "outlines", "--set", "prepare.classes=[stroma, epithelium]"]
        subprocess.run([str(word) for word in line], check=True)
        sheet = Image.open(Path(work, "data", "contact_sheet.png")).convert("RGB")
    left = drawn(slide, shapes)
    right = sheet.resize((round(sheet.width * HEIGHT / sheet.height), HEIGHT), Image.Resampling.LANCZOS)
    whole = Image.new("RGB", (left.width + 24 + right.width, HEIGHT), "white")
    whole.paste(left, (0, 0))
    whole.paste(right, (left.width + 24, 0))
    whole.save(folder / "outlines.jpg", quality=85)


if __name__ == "__main__":
    main()
