"""Samplers on three hosts, and what befalls hosts: shards are those of one process, byte for byte."""

import hashlib
import time
from collections.abc import Callable, Sequence

import pytest

from tests.cluster.site import MANY, Job, Site
from tests.synthesis.helpers import settings

pytestmark = pytest.mark.cluster


def shards(site: Site, name: str) -> dict[str, str]:
    folder = site.store.folder(name)
    return {file: hashlib.sha256(folder.read(file)).hexdigest() for file in folder.files("", ".tar")}


def begin(
    site: Site, bundle: str, out: str, program: Sequence[str] = ("diffgen",), **synthesis: object
) -> Job:
    name = site.settings("settings.yaml", settings(**MANY | synthesis).dump())
    where = ["--bundle", bundle, "--out", f"s3://bucket/{out}"]
    return site.submit(*program, "synthesize", *where, "--config", name)


def has(site: Site, out: str, number: int) -> Callable[[], bool]:
    """Whether a run has so many shards."""
    return lambda: len(site.store.folder(out).files("", ".tar")) >= number


def test_three_hosts_write_what_one_process_does(site: Site, bundle_url: str, inline: dict[str, str]) -> None:
    said = begin(site, bundle_url, "three").ends()
    assert shards(site, "three") == inline
    for number in (1, 2, 3):
        assert f"sampler-{number} busy" in said
    log = site.store.log()
    fetched = [one["path"] for one in log if one["method"] == "GET" and "/bucket/bundle/" in str(one["path"])]
    whole = [path for path in fetched if not str(path).endswith("?list")]
    assert whole
    assert len(whole) == len(set(whole)), "what is fetched is fetched once, and sent to the others"
    asked = {one["from"] for one in log}
    assert asked == {site["head"].address}, "samplers have no business with the store"


def test_a_host_that_is_paused(site: Site, bundle_url: str, inline: dict[str, str]) -> None:
    """For longer than its lease: others do its work, and its own answers come late."""
    job = begin(site, bundle_url, "paused", lease_timeout_s=5.0)
    job.until("a shard", has(site, "paused", 2))
    site["node1"].pause()
    time.sleep(11)  # not so long that the cluster gives it up
    site["node1"].resume()
    job.ends()
    assert shards(site, "paused") == inline


def test_a_host_that_is_cut_off_and_back(site: Site, bundle_url: str, inline: dict[str, str]) -> None:
    """Long enough to be given up by the cluster, then it is back with what it has."""
    job = begin(site, bundle_url, "cut", n=MANY["n"])
    job.until("a shard", has(site, "cut", 2))
    site["node2"].cut()
    job.until("its loss", lambda: site["node2"].address not in site.alive())
    site["node2"].restore()
    job.ends()
    assert shards(site, "cut") == inline


def test_the_head_is_lost_and_the_job_submitted_again(
    site: Site, bundle_url: str, inline: dict[str, str]
) -> None:
    """Another machine takes its place; the nodes are started anew, as with a new cluster."""
    job = begin(site, bundle_url, "head")
    job.until("a shard", has(site, "head", 3))
    site["head"].kill()
    job.process.kill()
    before = shards(site, "head")
    site.whole()
    said = begin(site, bundle_url, "head").ends()
    assert "resuming:" in said
    after = shards(site, "head")
    assert before.items() <= after.items()
    assert after == inline
