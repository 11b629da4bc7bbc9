"""Alert rules: they name metrics that exist, each has a case that fires and one that does not, promtool agrees."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client import Counter

from headrace import metrics

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"
RULES = yaml.safe_load((FOLDER / "headrace.rules.yml").read_text())["groups"][0]["rules"]
CASES = yaml.safe_load((FOLDER / "headrace.rules.test.yml").read_text())["tests"]


def names():
    for name in metrics.__all__:
        one = getattr(metrics, name)
        (family,) = one.describe()
        yield f"{family.name}_total" if isinstance(one, Counter) else family.name


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_names_metrics_that_exist_and_says_what_to_do(rule):
    assert set(re.findall(r"headrace_\w+", rule["expr"])) <= set(names())
    assert rule["annotations"]["next"]
    fired = [
        bool(case["exp_alerts"])
        for test in CASES
        for case in test["alert_rule_test"]
        if case["alertname"] == rule["alert"]
    ]
    assert sorted(fired) == [False, True]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
@pytest.mark.parametrize(
    "words", ["check rules headrace.rules.yml", "check config prometheus.yml", "test rules headrace.rules.test.yml"]
)
def test_promtool_agrees(words):
    done = subprocess.run(["promtool", *words.split()], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
