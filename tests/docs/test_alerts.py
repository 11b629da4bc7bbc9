"""Alert rules: they ask for what exists, each has a case that fires and one that does not, promtool agrees."""

from __future__ import annotations

import subprocess

import promql
import pytest
import yaml
from tools import which

FOLDER = promql.FOLDER / "prometheus"
RULES = yaml.safe_load((FOLDER / "headrace.rules.yml").read_text())["groups"][0]["rules"]
CASES = yaml.safe_load((FOLDER / "headrace.rules.test.yml").read_text())["tests"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_asks_for_what_exists_and_says_what_to_do(rule):
    assert promql.faults(rule["expr"], *rule["annotations"].values()) == []
    assert rule["annotations"]["next"]
    fired = [
        bool(case["exp_alerts"])
        for test in CASES
        for case in test["alert_rule_test"]
        if case["alertname"] == rule["alert"]
    ]
    assert sorted(fired) == [False, True]


@pytest.mark.parametrize("series", sorted({one["series"] for test in CASES for one in test["input_series"]}))
def test_a_case_feeds_series_that_exist(series):
    assert promql.faults(series) == []


@pytest.mark.parametrize(
    ("expr", "fault"),
    [
        ("headrace_redy == 0", "there is no metric headrace_redy"),
        ("headrace_events == 0", "there is no metric headrace_events"),
        ('headrace_ready{stream="a"}', "headrace_ready has no label stream"),
        ('headrace_events_total{outcome="refused"}', "outcome is never 'refused'"),
        ('headrace_versions_total{kind!="rollbak"}', "kind is never 'rollbak'"),
        ("sum by (reason) (headrace_events_total)", "there is no label reason to group by"),
        ("sum by (stream) (sum by (outcome) (headrace_events_total))", "there is no label stream to group by"),
        ("sum without (le) (headrace_ready)", "there is no label le to group by"),
        ("headrace_ready / on (stream) headrace_problem", "there is no label stream to group by"),
        ("histogram_quantile(0.9, headrace_step_seconds_sum)", "histogram_quantile of something without le"),
        ("histogram_quantile(0.9, sum(rate(headrace_step_seconds_bucket[5m])))", "histogram_quantile of something"),
        ("rate(headrace_events_total)", "expected type matrix"),
        ("sum(headrace_ready", "unclosed left parenthesis"),
    ],
)
def test_what_does_not_exist_is_noticed(expr, fault):
    assert fault in "; ".join(promql.faults(expr))


def test_a_text_that_shows_a_label_which_the_result_does_not_have_is_noticed():
    assert promql.faults("sum(headrace_ready)", "{{ $labels.role }} is down") == ["no label role to show"]


@pytest.mark.skipif(which("promtool") is None, reason="promtool is not installed (make machine)")
@pytest.mark.parametrize(
    "words", ["check rules headrace.rules.yml", "check config prometheus.yml", "test rules headrace.rules.test.yml"]
)
def test_promtool_agrees(words):
    done = subprocess.run([which("promtool"), *words.split()], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
