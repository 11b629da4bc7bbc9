"""`headrace report` as a user calls it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from headrace import clock, status
from headrace.cli.app import run
from headrace.log import name_of
from headrace.version import pin_of

VOID = {"meta", "img", "source", "br", "link"}


class Page(HTMLParser):
    """What a browser would load, and whether every tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.loads, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.loads += [value for name, value in attributes if name in ("src", "srcset", "href")]
        assert tag not in ("script", "link", "iframe")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def written(folder, name="headrace-report.html"):
    text = (folder / name).read_text()
    page = Page(text)
    assert not page.open
    assert "nan" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", text).lower()
    assert all(load.startswith("data:image/png;base64,") for load in page.loads), "nothing comes from elsewhere"
    assert "url(" not in text
    return page


def test_a_pin_to_a_version_that_was_collected_is_served_at_an_unknown_age(busy, tmp_path, capsys):
    publisher, last_us = busy.publisher, busy.publisher.record.created_at_us
    publisher.commit(pin_of(publisher.record, 2, now_us=last_us + clock.SECOND_US, code="test"))
    for seq in range(4):
        busy.loop.store.delete(name_of(busy.loop.version_log().prefix, seq))
    assert run(["report", "--json", "--rows", "0"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kept"]["versions"] == [4, 9]
    assert found["freshness"]["age_s"]["max"] is not None


def test_the_page_and_its_picture(busy, tmp_path, capsys):
    busy.publisher.hold(held=((7, 8),), held_now=((7, 8),), gate={"reasons": ["G2: a <b>& worse"]})
    assert run(["report"]) == 0
    page = written(tmp_path)
    assert len(page.loads) == 2 * 4, "four figures, each wide and narrow"
    assert (tmp_path / "headrace-report.png").read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob(".*tmp"))
    text = " ".join(page.text.split())
    assert "frozen: version 1" in text
    assert "versions 2 to 8 learned, each by the published version before" in text
    assert "Beside it, version 1 (the trainer's frozen one) on the same rows" in text
    assert "1 candidates were held (G2 1)" in text
    assert "G2: a <b>& worse" in text, "escaped"
    assert "1shard records still held" in text
    said = capsys.readouterr()
    assert "wrote headrace-report.html and headrace-report.png" in said.err
    assert "log-loss   live 0.4600, frozen 0.6000 (live is 23.3% lower), 252 rows of 7 versions" in said.out


def test_json_is_figures_alone(busy, tmp_path, capsys):
    assert run(["report", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert not list(tmp_path.glob("*report*"))
    assert found["log_loss"]["total"]["n"] == 7 * 36
    assert found["calibration"]["n"] == 7 * 36
    assert found["calibration"]["reference"]["frozen"]
    assert found["counts"]["versions"] == 9
    assert found["freshness"]["now_s"] is None, "nothing runs"
    assert found["freshness"]["last_s"] == pytest.approx(5.0)
    assert run(["report", "--json", "--out", "page.html", "--rows", "0"]) == 0
    assert json.loads(capsys.readouterr().out)["calibration"] == {"missing": "left out by --rows 0"}
    assert "left out by --rows 0" in written(tmp_path, "page.html").text


def test_while_the_loop_runs_ages_go_on_until_now(busy, capsys):
    beat = status.beat(
        busy.loop.store, "server", {"address": "127.0.0.1:1", "version": 8, "age_s": 4.0}, clock.now_us()
    )
    assert run(["report", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["running"] == ["server"]
    assert found["served"] == [{"address": "127.0.0.1:1", "version": 8, "age_s": 4.0}]
    assert found["until_us"] >= beat.at_us
    watermark_us = 1_700_000_067_000_000
    assert found["freshness"]["now_s"] == pytest.approx((found["until_us"] - watermark_us) / 1e6)


def test_a_span_leaves_out_what_came_before(busy, capsys):
    assert run(["report", "--json", "--hours", "0.01"]) == 0  # 36 s
    found = json.loads(capsys.readouterr().out)
    assert found["counts"]["versions"] == 4
    assert found["log_loss"]["total"]["versions"] == 4
    assert found["calibration"]["versions"] == [5, 8]


def test_where_nothing_was_made_yet(made, tmp_path, capsys):
    text = (tmp_path / "headrace.toml").read_text().replace('name = "feed"', 'name = "feed"\nroot = "./nowhere"')
    (tmp_path / "other.toml").write_text(text)
    assert run(["report", "-c", "other.toml"]) == 1
    assert "there is no loop in" in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists(), "looking makes no loop"
    assert run(["report"]) == 0
    said = capsys.readouterr().out
    assert "No event was read yet" in said
    assert "There is no version yet" in said
    page = written(tmp_path)
    assert not page.loads
    assert page.text.count("No event was read yet") == 4


def test_a_loop_without_versions_shows_its_events(made, tmp_path, capsys):
    made.shard([1, 2], [0, 1], at_s=1)
    made.shard([1, 2], [0, 1], at_s=2)
    assert run(["report"]) == 0
    page = written(tmp_path)
    assert page.text.count("There is no version yet: headrace train or headrace up makes the first.") == 3
    assert len(page.loads) == 2, "the events"
    made.start()
    assert run(["report"]) == 0
    assert "No version has learned from an event yet" in written(tmp_path).text
    assert "no reliability curve: no version that is kept has learned rows that are kept" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("report.png", "name one such as report.html"),
        ("report", "name one such as report.html"),
        ("missing/page.html", "mkdir -p missing"),
    ],
)
def test_places_where_no_page_can_be(busy, out, said, capsys):
    assert run(["report", "--out", out]) == 2
    assert said in capsys.readouterr().err


def test_damage_is_told_and_not_drawn_over(busy, tmp_path, capsys):
    path = tmp_path / "loop/shards/data/000000000007-0-aa.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert run(["report"]) == 4
    assert "does not have the SHA-256" in capsys.readouterr().err
    assert run(["report", "--rows", "0"]) == 0
