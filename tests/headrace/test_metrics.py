from __future__ import annotations

import re

from prometheus_client import REGISTRY

from headrace import metrics

OURS = [family for family in REGISTRY.collect() if family.name.startswith("headrace_")]


def test_all_are_exported_and_nothing_else():
    declared = {name for name, value in vars(metrics).items() if hasattr(value, "describe") and name.isupper()}
    assert set(metrics.__all__) == declared
    assert len(OURS) == len(declared)


def test_names_have_base_units_and_meanings_are_sentences():
    for family in OURS:
        assert re.fullmatch(r"headrace_[a-z_]+", family.name)
        assert family.documentation.endswith(".")
        assert not re.search(r"_(ms|us|minutes|kb|mb)$", family.name)
        if family.type == "histogram":
            assert family.name.endswith("_seconds")
