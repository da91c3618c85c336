"""One Chromium for all tests; each leaves it with nothing to complain of."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from diffgen.evaluation.page import write
from tests.browser.pages import full_page

if TYPE_CHECKING:
    from tests.browser.chromium import Chromium


@pytest.fixture(scope="session")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Chromium"]:
    pytest.importorskip("selenium", reason="the extra `browser` is not installed")
    from tests.browser.chromium import launch, missing

    if missing():
        pytest.skip(f"not on the PATH: {', '.join(missing())}")
    with launch(tmp_path_factory.mktemp("profile")) as chromium:
        yield chromium


@pytest.fixture
def chromium(tab: "Chromium") -> Iterator["Chromium"]:
    yield tab
    tab.assert_clean()


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write(full_page(), path)
    return path


@pytest.fixture(scope="session")
def screenshots() -> Path | None:
    """Where to put them: `DIFFGEN_SCREENSHOTS`, if set."""
    folder = os.environ.get("DIFFGEN_SCREENSHOTS")
    return Path(folder) if folder else None
