"""The dashboard asks for metrics that a run exports, and has what Grafana needs to show it."""

import ast
import json
import re
import time
import urllib.request
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
BOARD = json.loads((ROOT / "jobs" / "grafana.json").read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = BOARD["panels"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]
METRIC = re.compile(r"\b(?:ray_)?diffgen_\w+")
COLUMNS = 24  # of Grafana's grid


@cache
def gauges() -> dict[str, tuple[str, ...]]:
    """Each metric that the code makes, by the name that Ray exports, with its own labels."""
    found = {}
    for path in (ROOT / "diffgen").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in {
                "Gauge",
                "Counter",
                "Histogram",
            }:
                if not (node.args and isinstance(node.args[0], ast.Constant)):
                    continue  # collections.Counter
                tags = {k.arg: ast.literal_eval(k.value) for k in node.keywords}.get("tag_keys", ())
                found[f"ray_{node.args[0].value}"] = tuple(tags)
    return found


def test_every_expression_is_of_metrics_that_the_code_exports_and_every_metric_is_shown() -> None:
    asked = [METRIC.findall(expression) for expression in EXPRESSIONS]
    assert all(asked)
    assert {name for names in asked for name in names} == set(gauges())
    variables = [v["query"]["query"] for v in BOARD["templating"]["list"] if v["type"] == "query"]
    assert {name for query in variables for name in METRIC.findall(query)} <= set(gauges())


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_labels_are_those_of_the_metric(expression: str) -> None:
    (name,) = METRIC.findall(expression)
    by = {
        label.strip() for labels in re.findall(r"by \(([^)]*)\)", expression) for label in labels.split(",")
    }
    assert by <= set(gauges()[name])
    assert re.findall(r"\{([^}]*)\}", expression) == ['SessionName=~"$session"']
    assert expression.count("(") == expression.count(")")


def test_it_has_what_grafana_needs() -> None:
    assert BOARD["schemaVersion"] >= 36  # since then data sources are objects
    assert re.fullmatch(r"[\w-]{1,40}", BOARD["uid"])
    assert BOARD["title"]
    assert "id" not in BOARD, "Grafana gives one at import"
    variables = {variable["name"]: variable for variable in BOARD["templating"]["list"]}
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(BOARD))) - {"__all"}
    assert used == set(variables)
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    for panel in PANELS:
        assert panel["title"]
        assert panel["type"] in {"timeseries", "stat"}
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_panels_do_not_lie_on_each_other() -> None:
    cells = []
    for panel in PANELS:
        at = panel["gridPos"]
        assert set(at) == {"x", "y", "w", "h"}
        assert at["x"] + at["w"] <= COLUMNS
        cells.append({(at["x"] + i, at["y"] + k) for i in range(at["w"]) for k in range(at["h"])})
    assert not any(one & other for one, other in combinations(cells, 2))


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_ray_exports_them_under_these_names() -> None:
    """What Prometheus would be given by the node that the driver is on."""
    for needed in ("aiohttp_cors", "opencensus", "opentelemetry.exporter.prometheus", "prometheus_client"):
        pytest.importorskip(needed, reason="Ray exports by what ray[default] brings (make test-cluster)")
    import ray

    from diffgen.synthesis.leases import Status
    from diffgen.synthesis.pool import Gauges

    own, node = Gauges(), ray.nodes()[0]
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    found: dict[str, str] = {}
    until = time.monotonic() + 90
    while set(found) != set(gauges()):
        assert time.monotonic() < until, f"only {sorted(found)}"
        own.show(Status(progress=3.5, forwards=7, rows=1, slots=2, busy={"sampler-1": 2.5}))
        time.sleep(1)
        text = urllib.request.urlopen(url, timeout=10).read().decode()
        found = dict(re.findall(r"^(ray_diffgen_\w+)\{(.*)\} ", text, re.MULTILINE))
    for name, labels in found.items():
        assert {"SessionName", *gauges()[name]} <= set(re.findall(r'(\w+)="', labels))
