import time
from pathlib import Path

import pytest

from diffgen.data.sources import Source, _unique, find_sources
from diffgen.errors import UserError
from tests.data.pictures import save_image, tissue

PICTURE = tissue(16, 16)


def test_folders_are_searched_in_order_and_masks_are_no_sources(tmp_path: Path) -> None:
    for name in ("b/two.png", "a/one.jpg", "three.png"):
        save_image(tmp_path / name, PICTURE, PICTURE[..., 0] if "two" in name else None)
    (tmp_path / "notes.txt").write_text("no image")
    found = find_sources([str(tmp_path)])
    assert [source.name for source in found.sources] == ["a/one.jpg", "b/two.png", "three.png"]
    assert [source.folder for source in found.sources] == ["a", "b", tmp_path.name]
    assert [Path(source.mask).name if source.mask else None for source in found.sources] == [
        None,
        "two_mask.png",
        None,
    ]
    assert not found.left_out


def test_a_file_reached_twice_counts_once(tmp_path: Path) -> None:
    path = save_image(tmp_path / "one.png", PICTURE)
    (tmp_path / "other.png").symlink_to(path)
    found = find_sources([str(tmp_path), str(path)])
    assert len(found.sources) == 1
    assert set(found.left_out.values()) == {"the same file as one.png"}


def test_links_are_followed_to_what_they_are(tmp_path: Path) -> None:
    """A folder by two ways, a link into the output: neither makes a source."""
    save_image(tmp_path / "in" / "one.png", PICTURE)
    save_image(tmp_path / "out" / "contact_sheet.png", PICTURE)
    (tmp_path / "in" / "sheet.png").symlink_to(tmp_path / "out" / "contact_sheet.png")
    for name in ("in", "out"):
        (tmp_path / f"link to {name}").symlink_to(tmp_path / name)
    found = find_sources([str(tmp_path / "link to in"), str(tmp_path / "in")], tmp_path / "link to out")
    assert [source.name for source in found.sources] == ["one.png"]


def test_many_names_are_no_work() -> None:
    """By comparing each name with each, 20,000 took ten seconds, and 100,000 four minutes."""
    sources = [Source(f"{k}.png", f"/x/{k}.png", "x", "/x") for k in range(20_000)]
    began = time.process_time()
    assert _unique(sources) == sources
    assert time.process_time() - began < 1


def test_names_are_unique_over_roots(tmp_path: Path) -> None:
    for root in ("x", "y"):
        save_image(tmp_path / root / "one.png", PICTURE)
    found = find_sources([str(tmp_path / "x"), str(tmp_path / "y")])
    assert [source.name for source in found.sources] == ["x/one.png", "y/one.png"]


def test_what_lies_in_the_output_folder_is_no_source(tmp_path: Path) -> None:
    save_image(tmp_path / "one.png", PICTURE)
    save_image(tmp_path / "out" / "contact_sheet.png", PICTURE)
    found = find_sources([str(tmp_path)], tmp_path / "out")
    assert [source.name for source in found.sources] == ["one.png"]


def test_a_source_that_is_the_output_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_image(tmp_path / "data" / "slides" / "one.png", PICTURE)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=r"^source data/ and output are the same folder; choose another --out$"
    ):
        find_sources(["data/"], Path("data"))
    with pytest.raises(
        UserError, match=r"^source data/slides: all of it lies in the output folder data; choose"
    ):
        find_sources(["data/slides"], Path("data"))


@pytest.mark.parametrize("name", ["missing.svs", "empty", "text.txt"])
def test_wrong_paths_are_one_clear_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("no image")
    with pytest.raises(UserError, match=name):
        find_sources([str(tmp_path / name)])


def test_every_other_file_is_named_or_counted(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "b_mask.png", "images/c.png", "masks/c.png", ".ipynb_checkpoints/a.png"):
        save_image(tmp_path / name, PICTURE)
    (tmp_path / "notes.txt").write_text("none")
    found = find_sources([str(tmp_path)])
    masks = {source.name: source.mask and Path(source.mask).name for source in found.sources}
    assert masks == {"a.png": None, "images/c.png": "c.png"}
    assert set(found.left_out) == {"a.jpg", "b_mask.png"}
    assert found.unread == {".txt": 1}


def test_what_a_shell_makes_of_a_star_is_read_like_the_folder(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png", PICTURE, PICTURE[..., 0])
    save_image(tmp_path / "masks" / "b.png", PICTURE)
    save_image(tmp_path / "b.png", PICTURE)
    found = find_sources([str(path) for path in sorted(tmp_path.glob("*.png"))])
    assert {source.name: Path(source.mask or "").name for source in found.sources} == {
        "a.png": "a_mask.png",
        "b.png": "b.png",
    }
    one = find_sources([str(tmp_path / "a.png")])
    assert [Path(source.mask or "").name for source in one.sources] == ["a_mask.png"]
    assert find_sources([str(tmp_path / "a_mask.png")]).left_out == {
        "a_mask.png": "a label map without a picture, by its name"
    }


def test_label_maps_beside_the_folder_that_is_named(tmp_path: Path) -> None:
    save_image(tmp_path / "images" / "x" / "a.png", PICTURE)
    save_image(tmp_path / "masks" / "x" / "a.png", PICTURE)
    save_image(tmp_path / "masks" / "x" / "b.png", PICTURE)
    found = find_sources([str(tmp_path / "images")])
    assert [source.name for source in found.sources] == ["x/a.png"]
    assert Path(found.sources[0].mask or "").resolve() == (tmp_path / "masks" / "x" / "a.png").resolve()
    assert found.left_out == {"../masks/x/b.png": "a label map without a picture, by its name"}


def test_a_linked_folder_is_followed_once(tmp_path: Path) -> None:
    save_image(tmp_path / "elsewhere" / "a.png", PICTURE)
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "case").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "sub" / "round").symlink_to(tmp_path / "in")
    assert [source.name for source in find_sources([str(tmp_path / "in")]).sources] == ["case/a.png"]


def test_pictures_that_are_parts_of_a_slide_are_none(tmp_path: Path) -> None:
    for name in ("part.jpg", "macro.jpg", "own.jpg"):
        save_image(tmp_path / name, PICTURE)
    (tmp_path / "slide.vms").write_text(
        "[Virtual Microscope Specimen]\nImageFile=part.jpg\nMacroImage=macro.jpg\n"
    )
    save_image(tmp_path / "m" / "thumbnail.png", PICTURE)
    (tmp_path / "m.mrxs").write_bytes(b"")
    names = [source.name for source in find_sources([str(tmp_path)]).sources]
    assert names == ["m.mrxs", "own.jpg", "slide.vms"]
