"""What `diffgen export --to geojson` writes of a label map gives that label map again."""

import json
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from diffgen.data.annotations import load, rasterise
from diffgen.data.formats.base import ImagePixels
from diffgen.data.slides import Slide
from diffgen.export.geojson import feature
from diffgen.export.outlines import outlines
from diffgen.labels import Labels

LABELS = Labels(("unknown", "Stroma", "normal gland", "Tumor: Positive"))
IDS = {name.casefold(): number for number, name in enumerate(LABELS.classes)}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=24), elements=st.integers(0, 3))
)
def test_bit_for_bit(tmp_path: Path, label_map: np.ndarray) -> None:
    height, width = label_map.shape
    found = outlines(iter([label_map]), width)
    features = [feature(one.polygon, one.class_id, LABELS) for one in found]
    path = tmp_path / f"{hash(label_map.tobytes())}.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    slide = Slide(ImagePixels(Image.new("RGB", (width, height))), (0.5, 0.5))
    drawn = load(str(path), "a.png")
    assert np.array_equal(rasterise(drawn, IDS, slide, (0, 0, width, height), 0.5), label_map)
