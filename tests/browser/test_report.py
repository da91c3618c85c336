"""The report in a real browser: quiet, usable by mouse and by keyboard, at any width; whole on paper too."""

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from diffgen.evaluation.page import MASK_OPACITY, WORDS, Note, Page, Section, Verdict, write
from tests.browser.pages import EVIL, full_page

if TYPE_CHECKING:
    from tests.browser.chromium import Chromium

pytestmark = pytest.mark.browser

TELEPHONE, DESK = 390, 1400
CONTRAST = 4.5  # WCAG 2 AA, text of any size
# As selenium.webdriver.Keys names them; Selenium is only there where these tests run.
TAB, ENTER, ESCAPE, SPACE = "\ue004", "\ue007", "\ue00c", "\ue00d"
END, HOME, LEFT, RIGHT = "\ue010", "\ue011", "\ue012", "\ue014"

# Ratio of luminances of each text and of what is painted behind it: those below a limit.
FAINT_TEXTS = """
const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
function paint(colours) {
  canvas.clearRect(0, 0, 1, 1);
  for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
  return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
}
function luminance(colours) {
  const [r, g, b] = paint(colours).map((x) => x / 255)
    .map((x) => (x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
const faint = [];
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const element = texts.currentNode.parentElement;
  if (!texts.currentNode.data.trim() || !element.checkVisibility()) continue;
  if (["SCRIPT", "STYLE"].includes(element.tagName)) continue;
  const behind = [];
  for (let e = element; e; e = e.parentElement) behind.unshift(getComputedStyle(e).backgroundColor);
  behind.unshift("white"); // paper
  const [a, b] = [luminance(behind), luminance([...behind, getComputedStyle(element).color])];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < arguments[0]) faint.push([ratio, texts.currentNode.data.trim()]);
}
return faint;
"""
# What is wider than the screen, unless it lies in something that scrolls by itself.
TOO_WIDE = """
const wide = [...document.querySelectorAll("body *")].filter((e) => e.checkVisibility()
  && e.getBoundingClientRect().right > arguments[0] + 0.5
  && !e.closest(".scroll, .symbols"));
return [document.documentElement.scrollWidth, wide.map((e) => e.outerHTML.slice(0, 200))];
"""
# Texts, pictures and controls that one sees.
SEEN = """
return [...document.querySelectorAll("h1, h2, h3, p, li, dt, dd, th, td, img, code, .mark, .number")].filter(
  (e) => !e.closest(".contents, .viewer") && e.getClientRects().length && e.checkVisibility({
    contentVisibilityAuto: true, opacityProperty: true, visibilityProperty: true }))
  .map((e) => e.tagName + " " + (e.textContent.trim() || e.alt));
"""


@pytest.fixture
def opened(chromium: "Chromium", report: Path) -> "Chromium":
    chromium.open(report)
    return chromium


def opacity(chromium: "Chromium", selector: str) -> set[float]:
    """Of all the masks there."""
    find = "return [...document.querySelectorAll(arguments[0])].map((e) => +getComputedStyle(e).opacity)"
    return {round(x, 4) for x in chromium.run(find, selector)}


def is_open(chromium: "Chromium") -> bool:
    return bool(chromium.run("return document.querySelector('.viewer').open"))


def focused(chromium: "Chromium") -> Any:
    return chromium.driver.switch_to.active_element


def click_through(chromium: "Chromium") -> None:
    """Everything there is to click, and each picture opened and closed; `click` fails on any complaint."""
    broken = "return [...document.images].filter((i) => !i.complete || !i.naturalWidth).map((i) => i.alt)"
    assert chromium.run(broken) == []
    for link in chromium.all(".contents a, .glance a"):
        if link.is_displayed():
            chromium.click(link)
    for summary in chromium.all(".command summary"):
        chromium.click(summary)
    for button in chromium.all(".copy"):
        chromium.click(button)
        chromium.wait(lambda button=button: button.text == "Copied")  # type: ignore[misc]  # its default is typed
    for knobs in chromium.all(".block .knobs"):
        for knob in chromium.all("input", knobs):
            chromium.click(knob)
    for i, button in enumerate(chromium.all(".open")):
        chromium.click(button)
        assert is_open(chromium)
        assert len(chromium.all(".stage img")) == len(chromium.all("img", button))
        for step in chromium.all(".viewer button:not(.close)"):
            if step.is_displayed():
                chromium.click(step)
        if i % 2:
            chromium.press(ESCAPE)
        else:
            chromium.click(chromium.one(".viewer .close"))
        assert not is_open(chromium)


@pytest.mark.parametrize("width", [TELEPHONE, DESK])
def test_all_there_is_to_click_without_a_complaint(
    chromium: "Chromium", report: Path, width: int, screenshots: Path | None
) -> None:
    chromium.open(report, width)
    if screenshots:
        chromium.save_screenshot(screenshots / f"report-{width}.png")
    click_through(chromium)


@pytest.mark.parametrize("width", [TELEPHONE, DESK])
def test_a_real_report(chromium: "Chromium", width: int, screenshots: Path | None) -> None:
    if not os.environ.get("DIFFGEN_REPORT"):
        pytest.skip("DIFFGEN_REPORT is not set: the path of a report to click through")
    path = Path(os.environ["DIFFGEN_REPORT"])
    assert path.is_file(), f"DIFFGEN_REPORT: no file {path}"
    chromium.open(path, width)
    assert chromium.all(".answer")
    assert chromium.run(TOO_WIDE, width) == [width, []]
    if screenshots:
        chromium.save_screenshot(screenshots / f"real-{width}.png")
    click_through(chromium)
    for scheme in ("light", "dark"):
        chromium.open(path, width, scheme)
        assert chromium.run(FAINT_TEXTS, CONTRAST) == []


def test_a_complaint_is_heard(chromium: "Chromium", tmp_path: Path, report: Path) -> None:
    """Else the tests above could not fail."""
    for flaw, words in {
        "<script>console.error('a flaw')</script>": "script-src",
        '<p style="color: red">': "style-src",
        '<img src="picture.png">': "img-src",
    }.items():
        page = tmp_path / "report.html"
        page.write_text(report.read_text(encoding="utf-8").replace("</footer>", f"{flaw}</footer>"), "utf-8")
        with pytest.raises(AssertionError, match=words):
            chromium.open(page)
    page.write_text('<!doctype html><script src="other.js"></script>', "utf-8")
    with pytest.raises(AssertionError, match=r"request: .*other\.js"):
        chromium.open(page)
    with suppress(AssertionError):
        chromium.assert_clean()  # the console may say so later


def test_every_verdict_is_seen_with_its_number(opened: "Chromium") -> None:
    answers, parts = opened.all(".answer"), opened.all(".question")
    for question, answer, section in zip(full_page().sections, answers, parts, strict=True):
        assert opened.one(".asked", answer).text == question.title
        if question.verdict is None:
            assert not opened.all(".verdict", section)
            continue
        for place in (answer, opened.one(".verdict", section)):
            assert place.is_displayed()
            assert question.verdict.number in place.text
            assert question.verdict.text in place.text
            assert WORDS[question.verdict.level] in place.text


def test_links_go_to_their_sections(opened: "Chromium") -> None:
    top = "return document.querySelector(arguments[0]).getBoundingClientRect().top"
    for link in (*opened.all(".contents li a"), *opened.all(".glance a")):
        anchor = link.get_dom_attribute("href")
        assert anchor
        opened.run("scrollTo(0, 0)")
        opened.click(link)
        assert 0 <= opened.run(top, f"{anchor} h2") < 800, anchor
    # Where one is, is marked: the last sections too, which are too short to reach the top.
    for link in opened.all(".contents li a"):
        opened.click(link)
        opened.run("return new Promise((next) => requestAnimationFrame(() => requestAnimationFrame(next)))")
        assert opened.all(".contents [aria-current]") == [link]


def test_masks_follow_slider_and_switch(opened: "Chromium") -> None:
    for section, other in (("#privacy", "#labels"), ("#large", "#labels")):
        masks, rest = f"{section} .overlay", f"{other} .overlay"
        toggle, slider = opened.all(f"{section} .knobs input")
        assert opacity(opened, masks) == {MASK_OPACITY / 100}
        slider.send_keys(END)
        assert opacity(opened, masks) == {1.0}
        slider.send_keys(LEFT)
        assert opacity(opened, masks) == {0.99}
        opened.click(toggle)
        assert opacity(opened, masks) == {0.0}
        opened.click(toggle)
        assert opacity(opened, masks) == {0.99}
        opened.click(toggle)
        slider.send_keys(HOME, RIGHT)
        assert toggle.is_selected(), "who moves the slider wants to see masks"
        assert opacity(opened, masks) == {0.01}
        assert opacity(opened, rest) == {MASK_OPACITY / 100}


def test_a_mask_covers_its_picture(opened: "Chromium") -> None:
    shift = """return Math.max(...[...document.querySelectorAll('.picture:has(.overlay)')].map((picture) => {
      const [a, b] = [...picture.querySelectorAll('img')].map((image) => image.getBoundingClientRect());
      return Math.max(...['left', 'top', 'right', 'bottom'].map((side) => Math.abs(a[side] - b[side])));
    }))"""
    assert opened.run(shift) < 0.5
    opened.click(opened.one("#large .open"))
    assert opened.run(shift) < 0.5


def test_pictures_open_and_close_by_keyboard(opened: "Chromium", screenshots: Path | None) -> None:
    first = opened.one("#privacy .open")
    opened.run("arguments[0].focus()", first)
    opened.press(ENTER)
    place, stage = opened.one(".viewer .place"), opened.one(".stage")
    assert is_open(opened)
    assert place.text.endswith("1 of 5")
    assert len(opened.all("figure", stage)) == 2
    assert [name.text for name in opened.all(".viewer .legend li")] == [
        name.text for name in opened.all("#privacy .legend li")
    ]
    if screenshots:
        opened.save_view(screenshots / "opened.png")
    opened.press(RIGHT)
    assert place.text.endswith("2 of 5")
    assert EVIL in stage.text
    opened.press(LEFT, LEFT)
    assert place.text.endswith("5 of 5")
    opened.press("m")
    assert opacity(opened, ".stage .overlay") == {0.0}
    assert opacity(opened, "#privacy .overlay") == {0.0}, "the gallery shows what was chosen here"
    opened.press("m")
    for _ in range(12):  # as many as there are to reach, and more
        opened.press(TAB)
        inside = (
            "return document.activeElement === document.body || !!document.activeElement.closest('.viewer')"
        )
        assert opened.run(inside), "the page behind cannot be reached"
    opened.press(ESCAPE)
    assert not is_open(opened)
    last = opened.all("#privacy .open")[-1]
    opened.wait(lambda: focused(opened) == last)  # one resumes from the picture seen last


def test_the_viewer_closes_beside_it_and_by_its_button(opened: "Chromium") -> None:
    opened.click(opened.one("#fidelity .plot .open"))
    assert is_open(opened)
    assert not opened.one(".viewer .next").is_displayed(), "a plot is alone"
    assert not opened.one(".viewer [type=range]").is_displayed(), "and has no masks"
    opened.click(opened.one(".viewer .close"))
    assert not is_open(opened)
    opened.click(opened.one("#large .gallery .open"))
    from selenium.webdriver import ActionChains

    ActionChains(opened.driver).move_by_offset(5, 5).click().perform()
    opened.assert_clean()
    assert not is_open(opened)


def test_the_keyboard_reaches_all(opened: "Chromium") -> None:
    opened.press(TAB)
    skip = focused(opened)
    assert skip.text == "Skip to the verdicts"
    assert opened.run("return arguments[0].getBoundingClientRect().left", skip) >= 0
    opened.press(ENTER)
    assert opened.driver.current_url.endswith("#glance")
    opened.press(TAB)
    assert "answer" in (focused(opened).get_dom_attribute("class") or "")
    summary = opened.one("#labels .command summary")
    opened.run("arguments[0].focus()", summary)
    opened.press(ENTER)
    assert opened.one("#labels .command code").is_displayed()
    opened.press(TAB, TAB)
    assert focused(opened).text == "Copy"
    opened.press(SPACE)
    opened.wait(lambda: opened.one("#labels .copy").text == "Copied")
    toggle = opened.one("#labels .knobs [type=checkbox]")
    opened.run("arguments[0].focus()", toggle)
    opened.press(SPACE)
    assert opacity(opened, "#labels .overlay") == {0.0}


def test_each_figure_shows_its_command(opened: "Chromium") -> None:
    figures = [(section, block) for section in full_page().sections for block in section.blocks
               if not isinstance(block, Note)]  # fmt: skip
    blocks = opened.all(".block")
    assert [opened.one("h3", block).text for block in blocks] == [figure.title for _, figure in figures]
    for (section, _), block in zip(figures, blocks, strict=True):
        if not section.command:
            assert not opened.all(".command", block)
            continue
        code = opened.one("code", block)
        assert not code.is_displayed()
        opened.click(opened.one("summary", block))
        assert code.is_displayed()
        assert code.text == section.command


@pytest.mark.parametrize("width", [TELEPHONE, 820, 1200])
def test_a_long_number_does_not_crush_its_question(chromium: "Chromium", tmp_path: Path, width: int) -> None:
    question = Section(
        "long", "Do large images hold together?", Verdict("fair", "0.21 [0.17, 0.25], " * 4, "-")
    )
    write(Page("A page", "of a long number", (), (question,)), tmp_path / "report.html")
    chromium.open(tmp_path / "report.html", width)
    wide = "return document.querySelector('.answer .asked').getBoundingClientRect().width"
    assert chromium.run(wide) >= 200


@pytest.mark.parametrize("width", [320, TELEPHONE, 820, DESK, 2560])
def test_the_page_never_scrolls_sideways(chromium: "Chromium", report: Path, width: int) -> None:
    chromium.open(report, width)
    assert chromium.run(TOO_WIDE, width) == [width, []]
    for summary in chromium.all(".command summary"):
        chromium.click(summary)
    assert chromium.run(TOO_WIDE, width) == [width, []]
    for selector in ("#privacy .open", "#large .gallery .open", "#fidelity .plot .open"):
        chromium.click(chromium.one(selector))
        fits = "const v = document.querySelector('.viewer'); return v.scrollWidth <= v.clientWidth"
        assert chromium.run(fits)
        chromium.press(ESCAPE)


def test_what_names_a_row_stays_while_a_table_slides(chromium: "Chromium", report: Path) -> None:
    chromium.open(report, TELEPHONE)
    scroll = chromium.all("#fidelity .scroll")[1]
    name = chromium.one("tbody th", scroll)
    before = name.location["x"]
    chromium.run("arguments[0].scrollLeft = 300", scroll)
    assert chromium.run("return arguments[0].scrollLeft", scroll) == 300
    assert name.location["x"] == before


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(chromium: "Chromium", report: Path, scheme: Any, screenshots: Path | None) -> None:
    chromium.open(report, scheme=scheme)
    paper = chromium.run("return getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, paper[4:-1].split(","))) < 128) == (scheme == "dark")
    for summary in chromium.all(".command summary"):
        chromium.click(summary)
    chromium.run("document.activeElement.blur()")
    assert chromium.run(FAINT_TEXTS, CONTRAST) == []
    assert chromium.run(FAINT_TEXTS, 22), "no contrast is higher than 21: all texts are looked at"
    if screenshots:
        chromium.save_screenshot(screenshots / f"{scheme}.png")
    chromium.click(chromium.one("#privacy .open"))
    assert chromium.run(FAINT_TEXTS, CONTRAST) == []


def test_paper_has_all_the_screen_has(chromium: "Chromium", report: Path, screenshots: Path | None) -> None:
    chromium.open(report, 800)
    for summary in chromium.all(".command summary"):
        chromium.click(summary)
    seen = chromium.run(SEEN)
    assert f"CODE {full_page().sections[0].command}" in seen
    chromium.open(report, 800, "dark")
    chromium.emulate("dark", media="print")
    assert chromium.run(SEEN) == seen, "with the commands still folded"
    assert chromium.run(FAINT_TEXTS, CONTRAST) == []
    cut = (
        "return [...document.querySelectorAll('.scroll')].filter((e) => e.scrollWidth > e.clientWidth).length"
    )
    assert chromium.run(cut) == 0, "paper cannot be slid"
    if screenshots:
        chromium.save_pdf(screenshots / "report.pdf")


def test_without_script_it_says_the_same(chromium: "Chromium", report: Path) -> None:
    chromium.open(report)
    seen = chromium.run(SEEN)
    chromium.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        chromium.driver.get(chromium.file)
    finally:
        chromium.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert not chromium.one(".knobs").is_displayed(), "nothing that does not work is offered"
    assert chromium.run(SEEN) == seen


def test_a_page_without_questions(chromium: "Chromium", tmp_path: Path) -> None:
    write(Page("Empty", "", [], []), tmp_path / "report.html")
    chromium.open(tmp_path / "report.html")
    assert chromium.one("h1").text == "Empty"
