import json
from pathlib import Path

import pytest

from diffgen.config import load
from diffgen.data.scan import decide_classes, scan
from diffgen.data.slides import LeftOut
from diffgen.data.sources import Source, find_sources
from diffgen.data.stain import STAIN_CLASSES
from diffgen.errors import UserError
from diffgen.labels import Labels
from tests.data.pictures import save_image, tissue

PICTURE = tissue(16, 16)


@pytest.fixture
def masked(tmp_path: Path) -> list[Source]:
    save_image(tmp_path / "a.png", PICTURE, PICTURE[..., 0])
    save_image(tmp_path / "b.png", PICTURE)
    return find_sources([str(tmp_path)])[0]


def test_names_come_from_the_settings(masked: list[Source]) -> None:
    settings = load(None, ["prepare.classes={1: tumour, 3: stroma}"])
    classes, sources, notes = decide_classes(masked, settings)
    assert classes.labels.classes == ("unknown", "tumour", "unused 2", "stroma")
    assert sources == masked
    assert notes == []
    table = classes.table({255: 3, 9: 2})
    assert [table[i] for i in (0, 1, 2, 3, 9, 255, 60000)] == [0, 1, 0, 3, 0, 3, 0]


def test_names_come_from_labels_json_beside_the_sources(masked: list[Source], tmp_path: Path) -> None:
    Labels(("unknown", "tumour")).save(tmp_path / "labels.json")
    assert decide_classes(masked, load())[0].labels.classes == ("unknown", "tumour")
    (tmp_path / "labels.json").write_text(json.dumps({"classes": 1}))
    with pytest.raises(UserError, match=r"labels\.json"):
        decide_classes(masked, load())


def test_masks_without_names_are_an_error_that_says_what_to_do(masked: list[Source]) -> None:
    with pytest.raises(UserError, match=r"--set 'prepare\.classes={1: nuclei}'"):
        decide_classes(masked, load())
    with pytest.raises(UserError, match="0 is 'unknown'"):
        decide_classes(masked, load(None, ["prepare.classes={0: glass}"]))


def test_stain_classes_follow_those_of_the_masks(masked: list[Source]) -> None:
    settings = load(None, ["prepare.labels=stain", "prepare.classes={1: tumour, 2: background}"])
    classes, sources, _ = decide_classes(masked, settings)
    assert classes.labels.classes == ("unknown", "tumour", "background", *STAIN_CLASSES[1:])
    assert classes.stain_ids == (2, 3, 4, 5)
    assert sources == masked


def test_masks_that_are_not_used_are_named(masked: list[Source]) -> None:
    for kind, names in (("stain", ("unknown", *STAIN_CLASSES)), ("none", ("unknown",))):
        classes, sources, notes = decide_classes(masked, load(None, [f"prepare.labels={kind}"]))
        assert classes.labels.classes == names
        assert not any(source.mask for source in sources)
        assert "masks of 1 file are not used" in notes[0]


def test_a_source_in_which_no_wide_crop_fits_is_left_out_with_the_side_that_it_lacks(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png", tissue(100, 200))
    source = find_sources([str(tmp_path)])[0][0]
    said = ["image_model.patch=16", "prepare.assume_mpp=0.5", "prepare.labels=none"]
    classes = decide_classes([source], load(None, said))[0]
    assert scan(source, load(None, said), classes).height in {100, 200}
    with pytest.raises(LeftOut, match=r"smaller than an image patch \(128 px at 0\.5 µm per pixel\)"):
        scan(source, load(None, [*said, "image_model.context=wide"]), classes)
