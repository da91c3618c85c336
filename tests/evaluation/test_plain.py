"""The report's first page says each verdict in words without figures."""

import re
from typing import get_args

import pytest

from diffgen.evaluation.evaluate import SECTIONS
from diffgen.evaluation.page import Level, Verdict
from diffgen.evaluation.sections.plain import WORDS, plain


@pytest.mark.parametrize("topic", sorted(SECTIONS.keys() - {"baselines"}))
@pytest.mark.parametrize("level", get_args(Level))
def test_each_level_of_each_section_has_a_sentence_without_figures(topic: str, level: Level) -> None:
    words = plain(topic, Verdict(level, "0.5", "Some."))
    assert re.fullmatch(r"[A-Z][^0-9%]+\.", words)
    assert sum(words == other for by_level in WORDS.values() for other in by_level.values()) == 1


def test_no_verdict_no_sentence() -> None:
    assert plain("fidelity", None) == plain("baselines", Verdict("good", "", "")) == ""
