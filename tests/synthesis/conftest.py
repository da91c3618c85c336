import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.synthesis.shard_runs import Maker


@pytest.fixture(params=["local", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "out") if request.param == "local" else f"memory://{uuid.uuid4().hex}/out"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], str]:
    """Folder of a run of n samples that nobody interrupted."""
    folders: dict[int, str] = {}

    def run(n: int) -> str:
        if n not in folders:
            folders[n] = str(tmp_path_factory.mktemp("undisturbed") / "out")
            maker = Maker()
            maker(folders[n], n)
            assert maker.made == list(range(n))
        return folders[n]

    return run
