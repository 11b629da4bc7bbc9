"""What counts as fresh, and what a probe appends."""

import json
import math

import pytest
from settings import USER, settings_text

from headrace import config
from headrace.cli.probe import Prober, candidates_of
from headrace.cli.probe_appends import places_of
from headrace.cli.probe_figures import Commit, Probe, percentile, stages_of, summary
from headrace.errors import NotImplementedYet, SettingsError
from pipelines.sources.files import FileSource

S = 1_000_000


def settings_of(impressions, *features):
    return settings_text(
        *features,
        streams={"time": "ts", "time_unit": "us"},
        impression={"source": impressions},
        click={"source": "clicks.jsonl"},
        label={"wait_s": 2},
    )


def settings_in(folder, impressions="impressions.jsonl"):
    file = folder / "headrace.toml"
    file.write_text(settings_of(impressions))
    return config.load(file)


def probe(**known):
    return Probe("v", "c", 1, 10 * S, 12 * S, "user", {}, **known)


def test_an_answer_counts_when_it_covers_the_probe_and_has_moved_beyond_the_control():
    one = probe()
    one.take("a", [0.9, 0.1], None, 11 * S)
    one.take("a", [0.9, 0.1], 12 * S, 13 * S)  # up to the due time: not past it
    assert one.freshness_s("a", 3.0) == math.inf
    one.take("a", [0.14, 0.1], 13 * S, 14 * S)  # covers, but the score has not moved enough
    assert one.first_us == {"a": 14 * S}
    assert not one.over(["a"], 15 * S, 3.0)
    one.take("a", [0.16, 0.1], 14 * S, 15 * S)
    assert one.freshness_s("a", 3.0) == 2.0
    assert one.over(["a"], 15 * S, 3.0)
    assert not one.over(["a", "b"], 15 * S, 3.0)


def test_a_label_of_0_moves_the_score_down():
    one = probe()
    one.label = 0
    one.take("a", [0.9, 0.1], 13 * S, 14 * S)
    assert not one.counted_us
    one.take("a", [0.1, 0.9], 13 * S, 15 * S)
    assert one.counted_us == {"a": 15 * S}


def test_what_is_not_counted_within_30_s_is_infinite():
    late = probe(counted_us={"a": 44 * S})
    assert late.freshness_s("a", 3.0) == math.inf
    assert probe().over(["a"], 44 * S, 3.0)
    assert summary([1.0, math.inf]) == {"p50": 1.0, "p99": "inf", "n": 2}
    assert math.isnan(percentile([], 50))


def test_stages_add_up_to_the_delay():
    one = probe(first_us={"a": 16 * S, "b": 17 * S})
    shards = [Commit(0, 11 * S, 12 * S), Commit(1, 13 * S, 14 * S)]
    versions = [Commit(7, 11 * S, 13 * S), Commit(8, 13 * S, 15 * S)]
    stages = stages_of([one, probe()], shards, versions, 3.0)
    assert stages == {"shard": [1.0], "version": [1.0], "served": [2.0]}


def test_probes_look_like_the_newest_whole_events(tmp_path):
    (tmp_path / "impressions.jsonl").write_text(
        '{"id":1,"ts":2,"user":"u"}\n{"id":7,"ts":8,"user":"w"}\n{"id":9,"t\n{"i'
    )
    (tmp_path / "clicks.jsonl").write_text('{"id":1,"ts":3}\n')
    places = places_of(settings_in(tmp_path))
    assert places["impression"].recent == ({"id": 7, "ts": 8, "user": "w"}, {"id": 1, "ts": 2, "user": "u"})
    places["click"].append([{"id": 5, "ts": 6}, {"id": 7, "ts": 8}])
    assert [json.loads(line)["id"] for line in places["click"].file.read_text().splitlines()] == [1, 5, 7]


def test_probes_go_where_the_log_grows_now(tmp_path):
    """A folder gets a new file while probes run: one in the file before would stop the pipeline."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text('{"id":1,"ts":2,"user":"u"}\n')
    (tmp_path / "clicks.jsonl").write_text('{"id":1,"ts":3}\n')
    place = places_of(settings_in(tmp_path, "in/"))["impression"]
    source = FileSource(str(tmp_path / "in"))
    at = source.first("files")
    for name in ("a.jsonl", "b.jsonl"):
        with (tmp_path / "in" / name).open("a") as log:
            log.write('{"id":5,"ts":2,"user":"u"}\n')
        read = source.reach("files", at, None, max_bytes=1 << 20, drain=False)
        place.append([{"id": 7, "ts": 8, "user": "u"}])
        at = source.reach("files", read.position, read.identity, max_bytes=1 << 20, drain=False).position
    assert (tmp_path / "in" / "b.jsonl").read_text().count("\n") == 2
    (tmp_path / "in" / "c.jsonl.gz").touch()
    with pytest.raises(NotImplementedYet, match=r"c\.jsonl\.gz.*JSON lines only"):
        place.append([{"id": 9, "ts": 8, "user": "u"}])


def test_other_sources_and_empty_ones_are_refused(tmp_path):
    (tmp_path / "clicks.jsonl").write_text('{"id":1,"ts":3}\n')
    (tmp_path / "impressions.csv").write_text("id,ts,user\n1,2,u\n")
    with pytest.raises(NotImplementedYet, match="JSON lines only"):
        places_of(settings_in(tmp_path, "impressions.csv"))
    (tmp_path / "impressions.jsonl").touch()
    with pytest.raises(SettingsError, match="no event yet"):
        places_of(settings_in(tmp_path))


def test_one_request_asks_for_every_value_and_its_control():
    first, second = (Probe(name, f"{name}c", 1, 0, 0, "user", {"slot": at}) for at, name in enumerate("vw"))
    assert candidates_of([first, second]) == {"user": ["v", "vc", "w", "wc"], "slot": [0, 0, 1, 1]}


def test_the_other_features_are_those_with_which_a_step_moves_the_score_most(tmp_path):
    events = [{"id": at, "ts": at, "user": "u", "slot": slot} for at, slot in enumerate("abc")]
    (tmp_path / "impressions.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    (tmp_path / "clicks.jsonl").write_text('{"id":1,"ts":3}\n')
    (tmp_path / "headrace.toml").write_text(settings_of("impressions.jsonl", USER, 'slot = { kind = "category" }'))
    settings = config.load(tmp_path / "headrace.toml")
    prober = Prober(settings, places_of(settings), settings.schema()["user"], 2)
    asked = []

    def scores(features):
        asked.append(features)
        return [{"a": 0.02, "b": 0.4, "c": 0.9}[slot] for slot in features["slot"]]

    prober.aim(scores)
    made = prober.append()
    assert made.features == {"slot": "b"}
    assert len(set(asked[0]["user"])) == 1  # a value without events
    assert asked[0]["user"][0] not in ("u", made.value)
    lines = (tmp_path / "impressions.jsonl").read_text().splitlines()[3:]
    assert [(json.loads(line)["user"], json.loads(line)["slot"]) for line in lines] == [
        (made.value, slot) for slot in "cb"
    ]
    assert (made.label, clicks(tmp_path)) == (1, 1 + 2)
    prober.aim(lambda features: [{"a": 0.02, "b": 0.1, "c": 0.9}[slot] for slot in features["slot"]])
    made = prober.append()
    assert (made.features, made.label, clicks(tmp_path)) == ({"slot": "c"}, 0, 1 + 2)  # no click is a 0


def clicks(folder):
    return len((folder / "clicks.jsonl").read_text().splitlines())
