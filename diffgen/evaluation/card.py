"""What an evaluation says in the dataset card of the images it is about."""

from collections.abc import Mapping

from diffgen.evaluation.page import WORDS, Verdict
from diffgen.storage import Folder

BEGIN, END = "<!-- evaluation -->", "<!-- /evaluation -->"
CAVEAT = """\
No verdict on privacy is a proof of anonymity: copies of small parts, under heavy noise, or drawn anew are not
found."""
SECTION = """\
{begin}
## Evaluation

By `diffgen evaluate`, against {real} regions of the real training images{held_out}. The report has all
figures, how sure each is, and what it does not detect. {caveat}

| question | verdict | figures |
|---|---|---|
{rows}

```
{command}
```
{end}
"""


def section(verdicts: Mapping[str, Verdict], real: int, held_out: int | None, command: str) -> str:
    """The section in Markdown: a row a question, by its title; the caveat of privacy stands above."""
    rows = [
        f"| {title} | {WORDS[verdict.level]} | {verdict.number}. {verdict.text} |".replace("\n", " ")
        for title, verdict in verdicts.items()
    ]
    held = "" if held_out is None else f" and {held_out:,} held-out ones"
    return SECTION.format(
        begin=BEGIN,
        end=END,
        real=f"{real:,}",
        held_out=held,
        caveat=CAVEAT,
        rows="\n".join(rows),
        command=command,
    )


def with_section(card: str, text: str, begin: str = BEGIN, end: str = END) -> str:
    """A card with this section: in place of an earlier one, else before its limitations, else at its end."""
    before, found, after = card.partition(begin)
    if found:
        return before + text + after.partition(f"{end}\n")[2]
    before, found, after = card.partition("## Limitations")
    return f"{before}{text}\n{found}{after}" if found else f"{card.rstrip()}\n\n{text}"


def put(where: str, text: str) -> bool:
    """Bring the section into the `README.md` of a folder or URL; false where there is none."""
    folder = Folder(where)
    if (card := folder.read_text("README.md")) is None:
        return False
    folder.write_text("README.md", with_section(card, text))
    return True
