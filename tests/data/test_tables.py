"""Contexts, patients and splits of the sources, from folders and tables."""

from pathlib import Path

import pytest

from diffgen.config import Settings, load
from diffgen.data.sources import Source
from diffgen.data.tables import read_table, with_tables
from diffgen.errors import UserError


def source(name: str) -> Source:
    return Source(name, f"/slides/{name}", Path(f"/slides/{name}").parent.name, "/slides")


SOURCES = [source("a/one.svs"), source("b/two.svs")]


def by_table(path: Path, text: str) -> Settings:
    path.write_text(text, encoding="utf-8")
    return load(None, [f"prepare.contexts={path}"])


def contexts_of(sources: list[Source], settings: Settings) -> dict[str, str]:
    return {source.name: source.context for source in with_tables(sources, settings)}


def groups_of(sources: list[Source], settings: Settings) -> list[str]:
    return [source.group for source in with_tables(sources, settings)]


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
        read_table("prepare.contexts", tmp_path / "latin.csv", ["context"])


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


def patients(path: Path, text: str) -> Settings:
    path.write_text(text, encoding="utf-8")
    return load(None, [f"prepare.patients={path}"])


def test_a_table_of_patients_gives_contexts_patients_and_splits(tmp_path: Path) -> None:
    said = patients(
        tmp_path / "p.csv", "File,Patient,Context,Split\none.svs,P1,lung,train\ntwo,P2,skin,Test\n"
    )
    one, two = with_tables(SOURCES, said)
    assert (one.group, one.context, one.split) == ("P1", "lung", "train")
    assert (two.group, two.context, two.split) == ("P2", "skin", "test")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,patient,split\none,P1,train\ntwo,P1,test\n", "patient P1 is on both sides of the split"),
        ("file,patient,split\none,P1,left\ntwo,P1,test\n", "line 2: split is train or test, not 'left'"),
        ("file,name\none,P1\n", "no column of context, patient or split"),
        ("file,patient\none,P1\n", r"no row for the source b/two\.svs"),
    ],
)
def test_what_is_wrong_with_patients_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        with_tables(SOURCES, patients(tmp_path / "p.csv", text))


@pytest.mark.parametrize("mark", [";", "\t"])
def test_a_table_as_excel_writes_it_where_commas_are_decimal(tmp_path: Path, mark: str) -> None:
    text = "\ufeffFile,Grade,Context\none,3,LUAD\r\ntwo,1,LUSC\r\n".replace(",", mark)
    assert set(contexts_of(SOURCES, by_table(tmp_path / "c.csv", text)).values()) == {"LUAD", "LUSC"}


def test_a_table_with_the_paths_of_another_machine(tmp_path: Path) -> None:
    text = "file,context\nC:\\slides\\one.svs,LUAD\n/mnt/x/two.svs,LUSC\n"
    assert contexts_of(SOURCES, by_table(tmp_path / "c.csv", text)) == {
        "a/one.svs": "LUAD",
        "b/two.svs": "LUSC",
    }
    settings = by_table(tmp_path / "c.csv", "file,context\nD:\\1\\one.svs,A\nD:\\2\\one.svs,B\ntwo,C\n")
    with pytest.raises(UserError, match=r"several rows may be of the source a/one\.svs: D:/1/one\.svs, D:/2"):
        with_tables(SOURCES, settings)


def test_rows_without_anything_are_none_and_two_columns_of_a_name_are_refused(tmp_path: Path) -> None:
    settings = by_table(tmp_path / "c.csv", "file,context\none,LUAD\n,\ntwo,LUSC\n ,\n")
    assert set(contexts_of(SOURCES, settings).values()) == {"LUAD", "LUSC"}
    settings = by_table(tmp_path / "c.csv", "file,context,Context\none,A,B\ntwo,A,B\n")
    with pytest.raises(UserError, match="two columns 'context'"):
        with_tables(SOURCES, settings)
