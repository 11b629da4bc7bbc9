"""PromQL against what headrace exports: names, labels and their values, and which labels a result has.

`labels_of(expr, faults)` walks the parsed expression (promql-parser, which also checks the types of arguments) and
appends to `faults` each metric that does not exist, each label that a metric does not have, and each value that a label
never has.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import promql_parser as promql
import yaml
from prometheus_client import PROCESS_COLLECTOR, Counter, Histogram

from headrace import metrics, version
from headrace.cli.observe import ROLES
from headrace.shard import SUMS
from pipelines.events import REASONS

if TYPE_CHECKING:
    from collections.abc import Iterable

FOLDER = Path(__file__).parents[2] / "deploy"
SCRAPES = yaml.safe_load((FOLDER / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]

VALUES = {
    "job": {scrape["job_name"] for scrape in SCRAPES},
    "stage": {one["labels"]["stage"] for scrape in SCRAPES for one in scrape["static_configs"]},
    "role": set(ROLES),
    "outcome": {outcome for outcomes in SUMS.values() for outcome in outcomes},
    "reason": set(REASONS),
    "kind": set(version.KINDS),
    "code": {code.name for code in grpc.StatusCode},
}
"""Label -> what it can be; a label that is not here can be anything."""

SCRAPED = {"job", "instance"} | {
    name for scrape in SCRAPES for one in scrape["static_configs"] for name in one["labels"]
}
"""What Prometheus itself puts on every series of headrace."""

GRAFANA = {"$__rate_interval": "1m", "$__range": "1h", "$__interval": "15s"}


def _exported() -> dict[str, set[str]]:
    """Series -> its labels."""
    found: dict[str, set[str]] = {"up": set()}
    for name in metrics.__all__:
        one = getattr(metrics, name)
        (family,) = one.describe()
        labels = set(one._labelnames)
        if isinstance(one, Counter):
            found[f"{family.name}_total"] = labels
        elif isinstance(one, Histogram):
            found |= {
                f"{family.name}_bucket": labels | {"le"},
                f"{family.name}_sum": labels,
                f"{family.name}_count": labels,
            }
        else:
            found[family.name] = labels
    found |= {sample.name: set() for family in PROCESS_COLLECTOR.collect() for sample in family.samples}  # of Linux
    return {name: labels | SCRAPED for name, labels in found.items()}


SERIES = _exported()


def parsed(expr: str) -> promql.Expr:
    """Of a dashboard's or a rule's expression. ValueError says what is wrong."""
    for variable, value in GRAFANA.items():
        expr = expr.replace(variable, value)
    return promql.parse(expr)


def labels_of(node: promql.Expr, faults: list[str]) -> set[str]:
    """The labels that the result of an expression can have."""
    match node:
        case promql.VectorSelector():
            return _of_selector(node, faults)
        case promql.MatrixSelector():
            return labels_of(node.vector_selector, faults)
        case promql.AggregateExpr():
            return _of_aggregate(node, faults)
        case promql.BinaryExpr():
            return _of_binary(node, faults)
        case promql.Call():
            inner = set().union(*(labels_of(one, faults) for one in node.args))
            if node.func.name == "histogram_quantile":
                if "le" not in inner:
                    faults.append("histogram_quantile of something without le")
                return inner - {"le"}
            return inner
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            return labels_of(node.expr, faults)
        case _:
            return set()


def _of_selector(node: promql.VectorSelector, faults: list[str]) -> set[str]:
    if node.name not in SERIES:
        faults.append(f"there is no metric {node.name}")
        return set()
    labels = SERIES[node.name]
    for one in node.matchers.matchers:
        if one.name not in labels:
            faults.append(f"{node.name} has no label {one.name}")
        elif one.op in (promql.MatchOp.Equal, promql.MatchOp.NotEqual):
            known = VALUES.get(one.name)
            if known is not None and one.value not in known:
                faults.append(f"{one.name} is never {one.value!r}")
    return labels


def _of_aggregate(node: promql.AggregateExpr, faults: list[str]) -> set[str]:
    inner = labels_of(node.expr, faults)
    if node.modifier is None:
        return set()
    named = set(node.modifier.labels)
    _known(named, inner, faults)
    return named if node.modifier.type == promql.AggModifierType.By else inner - named


def _of_binary(node: promql.BinaryExpr, faults: list[str]) -> set[str]:
    left, right = labels_of(node.lhs, faults), labels_of(node.rhs, faults)
    if node.modifier is not None and node.modifier.matching is not None:
        _known(node.modifier.matching.labels, left & right, faults)
    return left | right


def _known(named: Iterable[str], labels: set[str], faults: list[str]) -> None:
    faults += [f"there is no label {name} to group by" for name in named if name not in labels]


def shown(template: str) -> set[str]:
    """Labels that a legend (`{{stage}}`) or an annotation (`{{ $labels.stage }}`) shows.

    >>> sorted(shown("{{stream}} of {{ $labels.stage }}: {{ $value | humanizeDuration }}"))
    ['stage', 'stream']
    """
    return set(re.findall(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}", template))


def faults(expr: str, *templates: str) -> list[str]:
    """What is wrong with an expression, and with the texts that show its labels; empty = nothing."""
    found: list[str] = []
    try:
        labels = labels_of(parsed(expr), found)
    except ValueError as error:
        return [f"{error}"]
    for template in templates:
        found += [f"no label {name} to show" for name in sorted(shown(template) - labels)]
    return found
