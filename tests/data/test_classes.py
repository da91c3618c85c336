import json
from pathlib import Path

import pytest

from diffgen.config import load
from diffgen.data.classes import decide_classes
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
    return find_sources([str(tmp_path)]).sources


def test_names_come_from_the_settings(masked: list[Source]) -> None:
    settings = load(None, ["prepare.classes={1: tumour, 3: stroma}", "prepare.mask_values={255: 3, 9: 2}"])
    notes: list[str] = []
    classes, sources = decide_classes(masked, settings, notes)
    assert classes.labels.classes == ("unknown", "tumour", "unused 2", "stroma")
    assert sources == masked
    assert notes == ["neither a mask nor outlines: 1 file (b.png)"]
    assert [classes.table[i] for i in (0, 1, 2, 3, 9, 255, 60000)] == [0, 1, 0, 3, 0, 3, 0]


def test_names_come_from_labels_json_beside_the_sources(masked: list[Source], tmp_path: Path) -> None:
    Labels(("unknown", "tumour")).save(tmp_path / "labels.json")
    assert decide_classes(masked, load(), [])[0].labels.classes == ("unknown", "tumour")
    (tmp_path / "labels.json").write_text(json.dumps({"classes": 1}))
    with pytest.raises(UserError, match=r"labels\.json"):
        decide_classes(masked, load(), [])


def test_masks_without_names_are_an_error_that_says_what_to_do(masked: list[Source]) -> None:
    with pytest.raises(UserError, match=r"--set 'prepare\.classes={1: nuclei}'"):
        decide_classes(masked, load(), [])
    with pytest.raises(UserError, match="0 is 'unknown'"):
        decide_classes(masked, load(None, ["prepare.classes={0: glass}"]), [])


def test_stain_classes_follow_those_of_the_masks(masked: list[Source]) -> None:
    settings = load(None, ["prepare.labels=stain", "prepare.classes={1: tumour, 2: background}"])
    classes, sources = decide_classes(masked, settings, [])
    assert classes.labels.classes == ("unknown", "tumour", "background", *STAIN_CLASSES[1:])
    assert classes.stain_ids == (2, 3, 4, 5)
    assert sources == masked


def test_masks_that_are_not_used_are_named(masked: list[Source]) -> None:
    for kind, names in (("stain", ("unknown", *STAIN_CLASSES)), ("none", ("unknown",))):
        notes: list[str] = []
        classes, sources = decide_classes(masked, load(None, [f"prepare.labels={kind}"]), notes)
        assert classes.labels.classes == names
        assert not any(source.mask for source in sources)
        assert "masks of 1 file are not used" in notes[0]
