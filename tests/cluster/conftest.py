"""One site for all tests, mended after each; its hosts' logs are kept where a test fails."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import hosts
from tests.cluster.site import MANY, Site
from tests.synthesis.helpers import run, shard_hashes


@pytest.fixture(scope="session")
def _site() -> Iterator[Site]:
    if reason := hosts.missing():
        pytest.skip(reason)
    pytest.importorskip("aiohttp_cors", reason="`ray job submit` needs the extra `cluster`: ray[default]")
    pytest.importorskip("moto", reason="no S3 server: the extra `dev` is not installed")
    with hosts.Lan() as lan:
        yield Site(lan)


@pytest.fixture
def site(_site: Site) -> Iterator[Site]:
    _site.whole()
    _site.store.log()
    return _site


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    funcargs = getattr(item, "funcargs", {})
    if report.when == "call" and report.failed and "site" in funcargs:  # type: ignore[attr-defined]
        kept = Path(tempfile.mkdtemp(prefix="diffgen-cluster-"))
        funcargs["site"].tell_tale(kept)
        report.sections.append(("logs of the hosts", str(kept)))  # type: ignore[attr-defined]
    return report


@pytest.fixture(scope="session")
def bundle_url(_site: Site, tiny_bundle: Path) -> str:
    return _site.store.put(tiny_bundle, "bundle")


@pytest.fixture(scope="session")
def inline(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Name → SHA-256 of the shards that one process writes to a folder of its own."""
    out = tmp_path_factory.mktemp("inline")
    run(tiny_bundle, out, **MANY)
    return shard_hashes(out)
