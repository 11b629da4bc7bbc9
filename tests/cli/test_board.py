from __future__ import annotations

from headrace.cli import board

STATE = {
    "loop": "feed",
    "root": "./loop",
    "shards": {"head": 7, "watermark_us": 1_000_000, "events": {"click/files": {"read": 5, "joined": 5}}},
    "versions": {
        "head": 3,
        "kind": "delta",
        "served": 3,
        "watermark_us": 1_000_000,
        "evaluation": {"live": {"log_loss": 0.25}, "frozen": {"log_loss": 0.5}},
    },
    "untrained": 2,
    "waiting_rows": 1_500,
    "freshness_s": 2.0,
    "reason": "the trainer died",
    "processes": [
        {
            "role": "server",
            "living": True,
            "info": {"address": "127.0.0.1:1", "version": 2, "age_s": 1.5, "problem": "version 3 is damaged"},
        }
    ],
    "children": {
        "trainer": {
            "state": "pausing",
            "pid": None,
            "restarts": 1,
            "exit_code": 1,
            "resume_s": 4.0,
            "last_words": ["error: no room"],
            "log": "logs/trainer.log",
        }
    },
}


def test_the_table_says_what_a_user_asks() -> None:
    text = "\n".join(f"{name} {line}" for name, line in board.rows_of(STATE))
    for expected in (
        "click/files read 5  joined 5",
        "1,500 rows not trained yet",
        "live 0.2500, frozen 0.5000",
        "version 2 of 3 on 127.0.0.1:1, 1.5 s behind now",
        "why the trainer died",
        "PROBLEM: version 3 is damaged",
        "trainer DIED (exit code 1), again in 4.0 s; 1 restarts",
        "error: no room",
    ):
        assert expected in text


def test_an_empty_loop_has_a_table() -> None:
    empty = {"loop": "feed", "root": ".", "shards": None, "versions": None, "untrained": 0, "processes": []}
    empty |= {"freshness_s": None, "reason": ""}
    rows = board.rows_of(empty)
    assert ("versions", "none yet: `headrace train` learns from shards") in rows
    assert ("running", "nothing") in rows
    assert board.headlines(empty) == {}


def test_without_a_terminal_each_line_is_said_once(capsys) -> None:
    show = board.screen()
    show(STATE)
    first = capsys.readouterr().err
    show(STATE)
    assert "trainer DIED (1 restarts)" in first
    assert capsys.readouterr().err == ""
    show(STATE | {"versions": STATE["versions"] | {"head": 4}})
    assert capsys.readouterr().err.startswith("version 4: delta")
    show(None)


def test_a_problem_of_the_store_is_shown() -> None:
    state = {"loop": "feed", "problem": {"message": "the disk is gone", "hint": "mount it"}}
    assert ("fix", "mount it") in board.rows_of(state)


def test_from_outside_a_child_that_failed_is_told_by_up_that_runs() -> None:
    sign = {"host": "a1", "pid": 7, "at_us": 1_000_000, "silent": False}
    child = STATE["children"]["trainer"] | {"state": "failed", "restarts": 0}
    up = {"role": "up", "living": True, "info": {"children": {"trainer": child}}, **sign}
    dead = {"role": "trainer", "living": False, "info": {}, **sign}
    quiet = {"role": "server", "living": False, "info": {}, **sign, "silent": True}
    state = {name: value for name, value in STATE.items() if name != "children"} | {"processes": [dead, quiet, up]}
    rows = board.rows_of(state)
    assert [text.split("  ")[0] for name, text in rows if name == "trainer"] == [
        "FAILED (exit code 1): mend it, then start `headrace up` again"
    ]
    assert ("", "error: no room") in rows
    assert [text.split()[0] for name, text in rows if name == "server"] == ["silent"]
    gone = board.rows_of(state | {"processes": [dead, up | {"living": False}]})
    assert [text.split()[0] for name, text in gone if name == "trainer"] == ["gone"]
