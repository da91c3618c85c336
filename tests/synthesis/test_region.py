"""`--region`: the bytes of that crop of the whole image, from a run that never draws the whole."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffgen.errors import UserError
from tests.synthesis.helpers import Watch, run
from tests.synthesis.test_driver import members
from tests.synthesis.test_tiles import picture

SIZE = "640x512"
PLACES = ["0,0,64,64", "320,256,96,40", "576,480,64,32", "4,200,20,300"]


def compare(bundle: Path, tmp_path: Path, place: str, masks: Path | None = None, **more: Any) -> None:
    x, y, width, height = map(int, place.split(","))
    size = {} if masks else {"size": SIZE}
    settings = {"n": 1, **size, **more}
    if not (tmp_path / "whole").exists():
        run(bundle, tmp_path / "whole", masks, **settings)
    out = tmp_path / place
    run(bundle, out, masks, region=place, **settings)
    whole, part = members(tmp_path / "whole"), members(out)
    for kind in ("png", "mask.png"):
        expected = picture(whole, f"000000000.{kind}")[y : y + height, x : x + width]
        assert np.array_equal(picture(part, f"000000000.{kind}"), expected), kind
    records = [json.loads(files["000000000.json"]) for files in (whole, part)]
    told = {"x": x, "y": y, "width": width, "height": height}
    assert records[1]["region"] == records[1]["run"]["region"] == told
    assert "region" not in records[0]
    assert records[1]["parent"] == {"index": 0, "height": 512, "width": 640}
    assert json.loads((out / "run.json").read_text())["region"] == told


@pytest.mark.parametrize("sampling", [{}, {"cover": "random"}, {"cover": "aligned"},
                                      {"solver": "sde-dpmsolver++", "guidance": {"scale": 1.5}}])  # fmt: skip
def test_a_region_is_the_crop_of_the_whole(
    tiny_bundle: Path, tmp_path: Path, sampling: dict[str, Any]
) -> None:
    for place in PLACES if not sampling else PLACES[1:2]:
        compare(tiny_bundle, tmp_path, place, sampling={"mask_steps": 2, **sampling})
