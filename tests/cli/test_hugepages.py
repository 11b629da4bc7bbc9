"""`headrace train` begins again with huge pages, once, and nothing else does."""

from __future__ import annotations

import os

import pytest

from headrace.cli import hugepages


@pytest.fixture
def begun(monkeypatch):
    """What `begin_again` replaced the process by."""
    found = []
    monkeypatch.setattr(os, "execve", lambda *of: found.append(of))
    monkeypatch.setattr(hugepages, "on_request", lambda: True)
    monkeypatch.delenv(hugepages.TUNABLES, raising=False)
    return found


def test_a_trainer_begins_again_with_the_same_arguments(begun):
    hugepages.begin_again(["--debug", "train", "--watch"])
    ((_, arguments, environment),) = begun
    assert arguments[1:] == ["-m", "headrace.cli", "--debug", "train", "--watch"]
    assert environment[hugepages.TUNABLES] == hugepages.WANTED


def test_it_does_not_begin_a_third_time(begun, monkeypatch):
    monkeypatch.setenv(hugepages.TUNABLES, hugepages.WANTED)
    hugepages.begin_again(["train"])
    assert not begun


@pytest.mark.parametrize("arguments", [[], ["--help"], ["serve"], ["status", "train"]])
def test_other_commands_go_on(begun, arguments):
    hugepages.begin_again(arguments)
    assert not begun


def test_without_pages_on_request_nothing_begins_again(begun, monkeypatch):
    monkeypatch.setattr(hugepages, "on_request", lambda: False)
    hugepages.begin_again(["train"])
    assert not begun


def test_what_else_glibc_is_told_stays(monkeypatch):
    told = hugepages.with_huge_pages({hugepages.TUNABLES: "glibc.malloc.check=1"})
    assert told == {hugepages.TUNABLES: "glibc.malloc.check=1:glibc.malloc.hugetlb=1"}
