from pathlib import Path

import pytest

from diffgen.config import Settings, load
from diffgen.data.contexts import contexts_of, groups_of, read_table
from diffgen.data.sources import Source
from diffgen.errors import UserError


def source(name: str) -> Source:
    return Source(name, f"/slides/{name}", Path(f"/slides/{name}").parent.name, "/slides")


SOURCES = [source("a/one.svs"), source("b/two.svs")]


def by_table(path: Path, text: str) -> Settings:
    path.write_text(text, encoding="utf-8")
    return load(None, [f"prepare.contexts={path}"])


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
    assert groups_of(SOURCES, grouped) == {"a/one.svs": "case 1", "b/two.svs": "case 1"}
    alone = by_table(tmp_path / "d.csv", "file,context\none,x\ntwo,x\n")
    assert groups_of(SOURCES, alone) == groups_of(SOURCES, load()) == {s.name: s.name for s in SOURCES}
    lacking = by_table(tmp_path / "e.csv", "file,context,group\none,x,case 1\ntwo,x,\n")
    with pytest.raises(UserError, match="line 3: file or group is empty"):
        groups_of(SOURCES, lacking)
