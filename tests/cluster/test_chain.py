"""From slides to a report, all behind `s3://`: by jobs on nodes that share nothing else."""

import json
from collections import Counter
from pathlib import Path

import pytest

from diffgen import config
from tests.cluster.hosts import HOME
from tests.cluster.site import Site
from tests.conftest import TINY
from tests.data.pictures import save_slide, tissue

pytestmark = pytest.mark.cluster


def test_prepare_train_synthesize_filter_evaluate(site: Site, tmp_path: Path) -> None:
    """The slide travels with the code: a node has what the store and the job have, and no more."""
    slide = save_slide(tmp_path / "slide.tiff", tissue(512, 512), mpp=0.5)
    site.operator.put(slide, f"{HOME}/code/slides/slide.tiff")
    places = {"runs": "s3://bucket/chain", "run": "one", "report": "s3://bucket/chain/report"}
    parts = ["fidelity", "labels"]  # of one part alone the card is told nothing
    evaluation = {"parts": parts, "side": 32, "samples": 20, "downstream": {"steps": 10, "side": 16}}
    # A bundle of four steps makes nothing that is like tissue: what its images are like is no reason here.
    filters = {"checks": ["agreement", "copies", "duplicates"], "disagreement": 1.0}
    more = {"evaluation": evaluation, "filter": filters, "synthesis": {"n": 12}}
    tree = config.merge(TINY, {"places": places, "prepare": {"test_share": 0.25}, **more})
    name = site.settings("chain.yaml", config.validate(tree).dump())
    data, bundle, out, kept = (f"s3://bucket/chain/{part}" for part in ("data", "one/bundle", "out", "kept"))
    done = ["--config", name]
    assert data in site.submit("diffgen", "prepare", "slides", "--out", data, *done).ends()
    site.store.log()
    workers = ["--set", "training.workers=2"]
    said = site.submit("diffgen", "train", "both", "--data", data, *workers, *done).ends()
    assert f"bundle: {bundle}" in said
    log = (r for r in site.store.log() if r["method"] == "GET")
    tars = Counter((r["from"], r["path"]) for r in log if str(r["path"]).endswith(".tar"))
    assert set(tars.values()) == {1}, "each node fetches the data once, for both models"
    site.submit("diffgen", "synthesize", "--bundle", bundle, "--out", out, *done).ends()
    said = site.submit("diffgen", "filter", out, "--real", data, "--shards", kept, *done).ends()
    assert "12 of 12 images are kept" in said
    said = site.submit("diffgen", "evaluate", data, kept, *done).ends()
    assert "s3://bucket/chain/report/report.html" in said
    folder = site.store.folder("chain")
    assert json.loads(folder.read("report/metrics.json"))["fidelity"]["verdict"]
    assert folder.read("report/report.html").startswith(b"<!")
    assert "## Evaluation" in (folder.read_text("kept/README.md") or "")
    assert not site.operator.path(f"{HOME}/code/.diffgen.json").exists()
