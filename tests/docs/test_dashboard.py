"""The Grafana dashboard: Grafana's own schema takes it, and it asks Prometheus for what exists."""

from __future__ import annotations

import copy
import itertools
import json
import subprocess

import grafana
import promql
import pytest
import yaml
from tools import which

from headrace import metrics

BOARD = json.loads((promql.FOLDER / "grafana" / "headrace.json").read_text())
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
TARGETS = [
    pytest.param(target, id=f"{panel['title']} {target['refId']}") for panel in PANELS for target in panel["targets"]
]


def test_grafana_takes_it():
    assert grafana.faults(BOARD) == []


@pytest.mark.parametrize(
    ("place", "value", "fault"),
    [
        (("refrehs",), "5s", "there is no field 'refrehs'"),
        (("graphTooltip",), 7, "graphTooltip = 7: must be one of [0, 1, 2]"),
        (("time", "form"), "now-1h", "there is no field 'form'"),
        (("templating", "list", 0, "type"), "source", "type = 'source': must be one of"),
        (("panels", 1, "type"), "stats", "Grafana has no panel 'stats'"),
        (("panels", 1, "titel"), "x", "there is no field 'titel'"),
        (("panels", 1, "gridPos", "w"), "12", "w = '12': must be a whole number"),
        (("panels", 1, "datasource", "type"), "prometeus", "Grafana has no data source 'prometeus'"),
        (("panels", 1, "targets", 0, "legend"), "x", "there is no field 'legend'"),
        (("panels", 1, "targets", 0, "expr"), 1, "expr = 1: must be str"),
        (("panels", 1, "targets", 0, "instant"), "yes", "instant = 'yes': must be bool"),
        (("panels", 1, "options", "colorMode"), "colour", "colorMode = 'colour': must be one of"),
        (("panels", 1, "options", "reduceOption"), {}, "there is no field 'reduceOption'"),
        (("panels", 1, "fieldConfig", "defaults", "units"), "s", "there is no field 'units'"),
        (("panels", 1, "fieldConfig", "defaults", "thresholds", "mode"), "abs", "mode = 'abs': must be one of"),
        (("panels", 1, "fieldConfig", "defaults", "thresholds", "steps", 1, "value"), "1", "value = '1': must be"),
        (("panels", 7, "fieldConfig", "defaults", "custom", "drawStyle"), "lines", "drawStyle = 'lines': must be"),
        (("panels", 7, "fieldConfig", "defaults", "custom", "lineWidht"), 2, "there is no field 'lineWidht'"),
        (("panels", 7, "options", "tooltip", "mode"), "all", "mode = 'all': must be one of"),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_what_grafana_would_not_understand_is_noticed(place, value, fault):
    board = copy.deepcopy(BOARD)
    inner = board
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    assert fault in "; ".join(grafana.faults(board))


@pytest.mark.parametrize("target", TARGETS)
def test_a_panel_asks_for_what_exists(target):
    assert promql.faults(target["expr"], target["legendFormat"]) == []


def test_every_metric_is_shown():
    names = {one.describe()[0].name for one in (getattr(metrics, name) for name in metrics.__all__)}
    asked = " ".join(target["expr"] for panel in PANELS for target in panel["targets"])
    assert {name for name in names if name not in asked} == set()


def test_panels_have_numbers_and_places_of_their_own_and_say_what_they_show():
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    cells = [
        (x, y)
        for at in (panel["gridPos"] for panel in BOARD["panels"])
        for x, y in itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"]))
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert [panel["title"] for panel in PANELS if not panel["description"].endswith(".")] == []


@pytest.mark.skipif(which("promtool") is None, reason="promtool is not installed (make machine)")
def test_promtool_agrees(tmp_path):
    exprs = [promql.parsed(target["expr"]) for panel in PANELS for target in panel["targets"]]
    rules = [{"record": f"panel:{number}", "expr": expr.prettify()} for number, expr in enumerate(exprs)]
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    words = [which("promtool"), "check", "rules", "panels.yml"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
