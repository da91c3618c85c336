"""A store that is slow, throttles, breaks off uploads, lists late: nothing is lost, nothing twice."""

import re
from collections import Counter
from pathlib import Path

import pytest

from diffgen.synthesis import manifest
from tests.cluster.hosts import HOME
from tests.cluster.site import Site
from tests.cluster.test_synthesis import MANY, begin, shards
from tests.synthesis.helpers import run, shard_hashes

pytestmark = pytest.mark.cluster
SOON_MS = 50
LARGE = {"size": "160x160", "n": 8}
"""Images that are long enough in the works for snapshots."""


@pytest.fixture(scope="session")
def large(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("large")
    run(tiny_bundle, out, **MANY | LARGE)
    return shard_hashes(out)


@pytest.mark.parametrize(
    "faults",
    [{"delay_s": 0.1, "late_s": 3.0}, {"throttled": 0.2, "broken": 0.2}],
    ids=["slow and lists late", "throttles and breaks off"],
)
def test_a_bad_store_costs_time_and_nothing_else(
    site: Site,
    bundle_url: str,
    large: dict[str, str],
    faults: dict[str, float],
    request: pytest.FixtureRequest,
) -> None:
    """Snapshots are written all the while: they keep nobody waiting for a lease."""
    out = "-".join(request.node.callspec.id.split())
    with site.store.wrong(**faults):
        site.operator.put(Path(__file__).with_name("timed.py"), f"{HOME}/code/timed.py")
        job = begin(site, bundle_url, out, program=["python", "timed.py"], snapshot_s=0.2, **LARGE)
        said = job.ends(patience=900)
    driver, empty, calls = (
        float(re.findall(pattern, said)[0])
        for pattern in (
            r"coordinator answers within\s+(\d+) ms",
            r"an empty actor answers within (\d+) ms",
            r"leases and commits took ([\d.]+) ms",
        )
    )
    print(
        f"{out}, 99 %: lease or commit {calls} ms, to the driver {driver} ms, from an empty actor {empty} ms"
    )
    assert calls < SOON_MS
    assert driver < max(SOON_MS, 2 * empty), "the driver waits for more than its machine"
    folder, log = site.store.folder(out), site.store.log()
    written = Counter(
        one["path"]
        for one in log
        if one["method"] == "PUT" and one["status"] == 200 and str(one["path"]).endswith(".tar")
    )
    assert set(written.values()) == {1}, "each shard is written once"
    rows = manifest.read(folder, "manifest.parquet")["index"].to_pylist()
    assert sorted(rows) == list(range(LARGE["n"]))
    assert not folder.files("snapshots")
    if any(faults.get(kind) for kind in ("throttled", "broken")):
        assert any(one["status"] in (0, 503) for one in log)
    assert shards(site, out) == large
