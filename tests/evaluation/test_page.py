"""The page: one file that loads nothing, shows any text as it was given, and is the same bytes again."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from diffgen.evaluation import plots
from diffgen.evaluation.page import (
    Gallery,
    Interval,
    Note,
    Page,
    Plot,
    Section,
    Table,
    Tile,
    Verdict,
    bar,
    number,
    render,
    write,
)
from diffgen.evaluation.sections import cells
from diffgen.labels import Labels

EVIL = '<script>alert("x")</script> & µm'


def page() -> Page:
    rng = np.random.default_rng(0)
    labels = Labels(("unknown", "a", EVIL))
    image = cells.picture(rng.integers(0, 256, (40, 60, 3), np.uint8))
    mask = cells.overlay(rng.integers(0, 3, (40, 60), np.uint8), labels)
    legend = [(labels.classes[i], labels.colours[i]) for i in (1, 2)]
    blocks = [
        Table(
            "Scores",
            ["", "IP"],
            [[EVIL, Interval(0.94, 0.9, 0.97)], ["none", Interval(np.nan)]],
        ),
        Plot("Shares", plots.bars(["a", EVIL], {"real": [0.2, 0.8], "synthetic": [0.3, 0.7]}, "share")),
        Gallery("Pairs", [Tile(image, mask, EVIL, Tile(image))], legend=legend),
        Note(EVIL, warning=True),
    ]
    question = Section("fidelity", "Is it good?", Verdict("fair", "0.94", EVIL), blocks, [EVIL], "make x")
    return Page(
        "Report", EVIL, [("n", "12")], [question, Section("downstream", "Is it of use?", None)], [EVIL]
    )


def test_text_is_text_and_nothing_is_loaded() -> None:
    html = render(page())
    assert EVIL not in html
    assert html.count("<script>") == 1
    assert "0.94" in html
    assert "Fair" in html
    assert "make x" in html
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', html)
    assert "url(" not in html.replace("url(data:", "")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None
    assert policy[1].startswith("default-src &#39;none&#39;")


def test_the_same_page_is_the_same_bytes(tmp_path: Path) -> None:
    write(page(), tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render(page())


def test_anchors_are_words_and_given_once() -> None:
    one = Section("downstream", "", None)
    for questions in ([one, one], [Section("no word", "", None)]):
        with pytest.raises(ValueError, match="anchors"):
            render(Page("", "", [], questions))
    with pytest.raises(ValueError, match="no picture"):
        render(Page("", "", [], [Section("downstream", "", None, [Plot("", b"GIF89a")])]))


def test_numbers_and_bars() -> None:
    assert number(-1234.5) == "−1,234.50"
    assert number(float("nan")) == "–"
    assert bar(Interval(0.5, 0.25, 1.0)) == (25.0, 50.0, 100.0)
    assert bar(Interval(5.0, 4.0, 6.0)) is None
    assert bar(Interval(0.5)) is None


def test_a_column_is_set_by_its_first_cell_that_is_no_dash() -> None:
    table = Table("", ["", "n", "unit", "empty"], [["a", "–", "", "–"], ["b", "−1.5", "px", "–"]])
    assert [table.of_numbers(i) for i in (1, 2, 3)] == [True, False, True]
    html = render(Page("", "", [], [Section("downstream", "", None, [table])]))
    assert html.count('<td class="numeric">') == 4


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.bars(["a", "b"], {"real": [1e-4, 0.8], "synthetic": [0.1, 0.7]}, "share", log=True),
        lambda: plots.lines(
            [1, 2, 4], {"real": [1, 2, 3], "x": plots.Band([2, 3, 4], [1, 2, 3], [3, 4, 5])}, "px", "r"
        ),
        lambda: plots.histograms({"real": np.arange(9.0), "synthetic": np.arange(5.0)}, "distance"),
        lambda: plots.scatter2d({"real": np.eye(2), "synthetic": np.ones((3, 2))}),
    ],
)
def test_plots_are_svg_of_the_same_bytes(draw: Callable[[], bytes]) -> None:
    one, other = draw(), draw()
    assert one == other
    assert b"<svg" in one[:400]
    assert EVIL.encode() not in one
