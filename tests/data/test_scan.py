from pathlib import Path

import pytest

from diffgen.config import load
from diffgen.data.classes import decide_classes
from diffgen.data.formats.base import LeftOut
from diffgen.data.scan import scan
from diffgen.data.sources import find_sources
from tests.data.pictures import save_image, tissue


def test_a_source_in_which_no_wide_crop_fits_is_left_out_with_the_side_that_it_lacks(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png", tissue(100, 200))
    source = find_sources([str(tmp_path)]).sources[0]
    said = ["image_model.patch=16", "prepare.assume_mpp=0.5", "prepare.labels=none"]
    classes = decide_classes([source], load(None, said), [])[0]
    assert scan(source, load(None, said), classes).height in {100, 200}
    with pytest.raises(LeftOut, match=r"smaller than an image patch \(128 px at 0\.5 µm per pixel\)"):
        scan(source, load(None, [*said, "image_model.context=wide"]), classes)
