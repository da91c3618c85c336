"""Which file is what, by its name."""

import pytest

from diffgen.companions import pair


@pytest.mark.parametrize(
    ("picture", "mask"),
    [
        ("a.png", "a_mask.png"),
        ("a.png", "a_mask.tif"),
        ("b.png", "b_mask.PNG"),
        ("B.png", "b_MASK.png"),
        ("img_0.tif", "img_0_masks.tif"),
        ("train_1.bmp", "train_1_anno.bmp"),
        ("d [x=0,y=0,w=256,h=256].png", "d [x=0,y=0,w=256,h=256]-labelled.png"),
        ("e.png", "e.mask.png"),
        ("000000000.jpg", "000000000.mask.png"),
        ("g.tif", "g.tif_mask.png"),
        ("slide.ome.tif", "slide_mask.png"),
        ("slide.ome.tif", "slide.ome_mask.png"),
        ("slide.svs", "slide_labels.tiff"),
        ("images/f.png", "masks/f.png"),
        ("images/f.png", "masks/f_mask.png"),
        ("f.jpg", "masks/f.png"),
        ("train/images/x/f.png", "train/masks/x/f.png"),
        ("tissue images/1.png", "label masks/1.tif"),
        ("nuclei_segmentation/images/f.png", "nuclei_segmentation/masks/f.png"),
        ("colon_seg/a.png", "colon_seg/a_mask.png"),
        ("images/a_seg/f.png", "masks/a_seg/f.png"),
        ("case 1/mask of tumour.png", "case 1/mask of tumour_mask.png"),
    ],
)
def test_a_label_map_finds_its_picture(picture: str, mask: str) -> None:
    found = pair([mask, picture, "unrelated.png"])
    assert found.masks == {picture: mask}
    assert found.pictures == sorted([picture, "unrelated.png"])
    assert not found.passed


@pytest.mark.parametrize(
    ("picture", "outlines"),
    [
        ("a.svs", "a.geojson"),
        ("a.svs", "a.svs.geojson"),
        ("a.svs", "a_annotations.xml"),
        ("a.ome.tif", "a.geojson.gz"),
        ("slides/a.ndpi", "annotations/a.xml"),
        ("a.svs", "geojson/a.geojson"),
        ("a.svs", "a.annotations"),
    ],
)
def test_outlines_find_their_picture(picture: str, outlines: str) -> None:
    assert pair([picture, outlines]).outlines == {picture: outlines}


def test_a_label_map_alone_is_named() -> None:
    found = pair(["a.png", "b_mask.png", "masks/c.png", "masks/a.png"])
    assert found.pictures == ["a.png"]
    assert set(found.passed) == {"b_mask.png", "masks/c.png"}


def test_a_folder_whose_name_says_masks_and_that_holds_the_pictures_is_a_data_set() -> None:
    found = pair(["labels/a.png", "labels/b.png"])
    assert found.pictures == ["labels/a.png", "labels/b.png"]


def test_one_name_is_one_picture() -> None:
    found = pair(["a.jpg", "a.png", "a_mask.png", "s.svs", "s.png"])
    assert found.pictures == ["a.png", "s.svs"]
    assert found.passed == {
        "a.jpg": "another picture of this name: a.png is used",
        "s.png": "another picture of this name: s.svs is used",
    }


def test_names_that_differ_in_case_are_two() -> None:
    found = pair(["A.png", "a.png", "A_mask.png", "a_mask.png"])
    assert found.masks == {"A.png": "A_mask.png", "a.png": "a_mask.png"}


def test_of_two_label_maps_one_is_used() -> None:
    found = pair(["a.png", "a_seg.png", "a_mask.png", "masks/a.png"])
    assert found.masks == {"a.png": "a_mask.png"}
    assert set(found.passed) == {"a_seg.png", "masks/a.png"}


def test_a_label_map_in_jpeg_is_refused() -> None:
    found = pair(["a.png", "a_mask.jpg"])
    assert found.pictures == ["a.png"]
    assert found.passed == {"a_mask.jpg": "a label map in JPG has other ids: save it as PNG"}


def test_a_label_map_of_several_pictures_is_named() -> None:
    found = pair(["x/a.png", "y/a.png", "masks/a.png"])
    assert found.passed == {"masks/a.png": "belongs to several pictures: x/a.png, y/a.png"}


def test_many_names_are_no_work() -> None:
    import time

    names = [f"images/{k}.png" for k in range(50_000)] + [f"masks/{k}.png" for k in range(50_000)]
    began = time.process_time()
    assert len(pair(names).masks) == 50_000
    assert time.process_time() - began < 8
