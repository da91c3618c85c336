"""A node that is not as the others: its disk is full, its clock is off, it has other versions."""

import contextlib
from pathlib import Path

import pytest

import diffgen
from tests.cluster.hosts import Host
from tests.cluster.site import IMAGE, Site
from tests.cluster.test_synthesis import begin, shards

pytestmark = pytest.mark.cluster
HOUR = 3600


def fill(path: Path) -> None:
    """A file that takes what is left of a disk."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(1 << 20)):
            pass


def test_a_full_disk_is_named_and_with_room_the_run_goes_on(
    site: Site,
    bundle_url: str,
    inline: dict[str, str],
) -> None:
    begin(site, bundle_url, "warm", n=2).ends()  # the code is on all nodes by now
    filler = site["node3"].path("/tmp/filler")
    fill(filler)
    said = begin(site, bundle_url, "full").ends(well=False)
    assert "error: " in said
    assert "No space left" in said, said
    assert "node3" in said or site["node3"].address in said, said
    filler.unlink()
    site.again("node3")  # Ray keeps to a failed environment for ten minutes
    site.wait("head", *site.nodes)
    begin(site, bundle_url, "full").ends()
    assert shards(site, "full") == inline


def test_a_clock_that_is_an_hour_off_is_named_and_changes_nothing(
    site: Site,
    bundle_url: str,
    inline: dict[str, str],
) -> None:
    """Python's clock of that host alone: namespaces have no clock of their own."""

    def skew(host: Host) -> None:
        lines = f"import time\nreal = time.time\ntime.time = lambda: real() + {HOUR}\n"
        host.path(f"{IMAGE}/sitecustomize.py").write_text(lines)

    with site.another("node2", skew):
        said = site.submit("diffgen", "doctor", "--out", "s3://bucket/x", "--bundle", bundle_url).ends(
            well=False
        )
        assert "3600 s" in said or "3599 s" in said, said
        assert "node2" in said
        begin(site, bundle_url, "skewed").ends()
        assert shards(site, "skewed") == inline


def test_other_versions_are_named_and_refused_at_the_start(site: Site, bundle_url: str) -> None:
    """Without `--working-dir` nodes have what their image has."""

    def older(host: Host) -> None:
        init = host.path(f"{IMAGE}/diffgen/__init__.py")
        init.write_text(init.read_text().replace('__version__ = "', '__version__ = "0.0.'))

    def other_torch(host: Host) -> None:
        about = host.path(f"{IMAGE}/torch-1.2.3.dist-info")
        about.mkdir()
        Path(about / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 1.2.3\n")

    line = ["diffgen", "synthesize", "--bundle", bundle_url, "--out", "s3://bucket/older", "--n", "1"]
    with site.another("node1", older), site.another("node3", other_torch):
        said = site.submit(*line, "--size", "64", working_dir=False).ends(well=False)
    assert "error: diffgen " in said
    assert f"0.0.{diffgen.__version__} on node1" in said
    assert "1.2.3 on node3" in said
    assert not site.store.folder("older").files("", ".tar")
