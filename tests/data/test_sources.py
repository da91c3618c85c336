import time
from pathlib import Path

import pytest

from diffgen.config import Settings, load
from diffgen.data.sources import Source, _unique, find_sources, read_table, with_contexts
from diffgen.errors import UserError
from tests.data.pictures import save_image, tissue

PICTURE = tissue(16, 16)


def test_folders_are_searched_in_order_and_masks_are_no_sources(tmp_path: Path) -> None:
    for name in ("b/two.png", "a/one.jpg", "three.png"):
        save_image(tmp_path / name, PICTURE, PICTURE[..., 0] if "two" in name else None)
    (tmp_path / "notes.txt").write_text("no image")
    found, twice = find_sources([str(tmp_path)])
    assert [source.name for source in found] == ["a/one.jpg", "b/two.png", "three.png"]
    assert [source.folder for source in found] == ["a", "b", tmp_path.name]
    assert [Path(source.mask).name if source.mask else None for source in found] == [
        None,
        "two_mask.png",
        None,
    ]
    assert not twice


def test_a_file_reached_twice_counts_once(tmp_path: Path) -> None:
    path = save_image(tmp_path / "one.png", PICTURE)
    (tmp_path / "other.png").symlink_to(path)
    found, twice = find_sources([str(tmp_path), str(path)])
    assert len(found) == 1
    assert len(twice) == 2


def test_links_are_followed_to_what_they_are(tmp_path: Path) -> None:
    """A folder by two ways, a link into the output: neither makes a source."""
    save_image(tmp_path / "in" / "one.png", PICTURE)
    save_image(tmp_path / "out" / "contact_sheet.png", PICTURE)
    (tmp_path / "in" / "sheet.png").symlink_to(tmp_path / "out" / "contact_sheet.png")
    for name in ("in", "out"):
        (tmp_path / f"link to {name}").symlink_to(tmp_path / name)
    found, twice = find_sources(
        [str(tmp_path / "link to in"), str(tmp_path / "in")], tmp_path / "link to out"
    )
    assert [source.name for source in found] == twice == ["one.png"]


def test_many_names_are_no_work() -> None:
    """By comparing each name with each, 20,000 took ten seconds, and 100,000 four minutes."""
    sources = [Source(f"{k}.png", f"/x/{k}.png", "x", "/x") for k in range(20_000)]
    began = time.process_time()
    assert _unique(sources) == sources
    assert time.process_time() - began < 1


def test_names_are_unique_over_roots(tmp_path: Path) -> None:
    for root in ("x", "y"):
        save_image(tmp_path / root / "one.png", PICTURE)
    found, _ = find_sources([str(tmp_path / "x"), str(tmp_path / "y")])
    assert [source.name for source in found] == ["x/one.png", "y/one.png"]


def test_what_lies_in_the_output_folder_is_no_source(tmp_path: Path) -> None:
    save_image(tmp_path / "one.png", PICTURE)
    save_image(tmp_path / "out" / "contact_sheet.png", PICTURE)
    found, _ = find_sources([str(tmp_path)], tmp_path / "out")
    assert [source.name for source in found] == ["one.png"]


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


def source(name: str) -> Source:
    return Source(name, f"/slides/{name}", Path(f"/slides/{name}").parent.name, "/slides")


SOURCES = [source("a/one.svs"), source("b/two.svs")]


def by_table(path: Path, text: str) -> Settings:
    path.write_text(text, encoding="utf-8")
    return load(None, [f"prepare.contexts={path}"])


def contexts_of(sources: list[Source], settings: Settings) -> dict[str, str]:
    return {source.name: source.context for source in with_contexts(sources, settings)}


def groups_of(sources: list[Source], settings: Settings) -> list[str]:
    return [source.group for source in with_contexts(sources, settings)]


def test_one_context_for_all_or_one_a_folder() -> None:
    assert contexts_of(SOURCES, load()) == {"a/one.svs": "tissue", "b/two.svs": "tissue"}
    found = contexts_of(SOURCES, load(None, ["prepare.contexts=folder"]))
    assert found == {"a/one.svs": "a", "b/two.svs": "b"}


@pytest.mark.parametrize("key", ["a/one.svs", "one.svs", "one"])
def test_a_table_names_files_by_path_name_or_stem(tmp_path: Path, key: str) -> None:
    text = f"\ufefffile, grade,context\n{key},3, LUAD \ntwo,1,LUSC\nnot here,2,LUSC\n"
    assert contexts_of(SOURCES, by_table(tmp_path / "c.csv", text)) == {
        "a/one.svs": "LUAD",
        "b/two.svs": "LUSC",
    }


def test_the_longer_name_goes_first(tmp_path: Path) -> None:
    settings = by_table(tmp_path / "c.csv", "file,context\none,stem\na/one.svs,path\none.svs,name\ntwo,x\n")
    assert contexts_of(SOURCES, settings)["a/one.svs"] == "path"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,context\none,LUAD\n", r"c\.csv: no row for the source b/two\.svs"),
        ("file,kontext\none,LUAD\n", r"c\.csv: no column 'context' in its header \['file', 'kontext'\]"),
        ("", "no column 'file'"),
        ("file,context\none\n", r"c\.csv, line 2: file or context is empty"),
        ("file,context\none,A\none,A\none,B\n", "line 4: one has the context 'A' already"),
    ],
)
def test_what_is_wrong_with_a_table_is_one_line_that_names_it(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        contexts_of(SOURCES, by_table(tmp_path / "c.csv", text))
    assert "\n" not in str(caught.value)


def test_a_table_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"prepare\.contexts 'folders': neither one, folder nor a readable"):
        contexts_of(SOURCES, load(None, ["prepare.contexts=folders"]))
    (tmp_path / "latin.csv").write_bytes("file,context\nä,ö\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"latin\.csv"):
        read_table(tmp_path / "latin.csv")


def test_more_contexts_than_fit(tmp_path: Path) -> None:
    sources = [source(f"{i}.svs") for i in range(256)]
    text = "file,context\n" + "".join(f"{i},context {i}\n" for i in range(256))
    settings = by_table(tmp_path / "c.csv", text)
    assert len(contexts_of(sources[:255], settings)) == 255
    with pytest.raises(UserError, match="256 contexts, at most 255"):
        contexts_of(sources, settings)


def test_groups_are_a_column_that_may_be_there(tmp_path: Path) -> None:
    grouped = by_table(tmp_path / "c.csv", "file,context,group\none,x,case 1\ntwo,x,case 1\n")
    assert groups_of(SOURCES, grouped) == ["case 1", "case 1"]
    alone = by_table(tmp_path / "d.csv", "file,context\none,x\ntwo,x\n")
    assert groups_of(SOURCES, alone) == groups_of(SOURCES, load()) == ["", ""]
    lacking = by_table(tmp_path / "e.csv", "file,context,group\none,x,case 1\ntwo,x,\n")
    with pytest.raises(UserError, match="line 3: file or group is empty"):
        groups_of(SOURCES, lacking)
