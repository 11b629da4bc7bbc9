from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from headrace import config
from headrace.errors import NotImplementedYet, SettingsError
from headrace.place import path_of
from headrace.schema import Feature

FEED = """\
[loop]
name = "feed"
[streams.impression]
source = "events.jsonl"
where = { type = "impression" }
id = "request_id"
time = "shown_at"
time_unit = "ms"
[streams.click]
source = "events.jsonl"
id = "request_id"
time = "clicked_at"
time_unit = "ms"
[label]
mode = "implicit"
wait_s = 30
attribution_s = 1800
[features]
user    = { kind = "id" }
surface = { kind = "category", path = "context.surface" }
price   = { kind = "number", transform = "log1p" }
dear    = { kind = "bucket", of = "price", edges = [1, 6, 24] }
age     = { kind = "bucket", of = "age_h", edges = [1, 6, 24] }
hour    = { kind = "time", of = "shown_at", part = "hour", time_zone = "Asia/Shanghai" }
born    = { kind = "time", column = "born", part = "weekday", time_unit = "s" }
tags    = { kind = "ids", max = 4 }
u_x_s   = { kind = "cross", of = ["user", "surface"] }
"""

EXPLICIT = FEED.replace('mode = "implicit"\nwait_s = 30', 'mode = "explicit"').replace(
    'time = "clicked_at"', 'time = "clicked_at"\nlabel = "outcome"'
)


def test_the_whole_file() -> None:
    settings = config.parse(FEED, folder=Path("/data"))
    assert settings.loop.root == "/data/loop"
    assert settings.impression.source == "/data/events.jsonl"
    assert settings.impression.where == {"type": "impression"}
    assert (settings.feedback_name, settings.feedback.time) == ("click", "clicked_at")
    assert (settings.label.mode, settings.label.wait_s, settings.label.attribution_s) == ("implicit", 30.0, 1800.0)
    assert settings.schema().features == (
        Feature("user", "id", ("user",)),
        Feature("surface", "category", ("context", "surface")),
        Feature("price", "number", ("price",), transform="log1p"),
        Feature("dear", "bucket", ("price",), edges=(1.0, 6.0, 24.0)),
        Feature("age", "bucket", ("age_h",), edges=(1.0, 6.0, 24.0)),
        Feature("hour", "time", ("shown_at",), part="hour", time_zone="Asia/Shanghai", time_unit="ms"),
        Feature("born", "time", ("born",), part="weekday", time_unit="s"),
        Feature("tags", "ids", ("tags",), max=4),
        Feature("u_x_s", "cross", of=("user", "surface")),
    )


def test_defaults() -> None:
    settings = config.parse(FEED)
    assert settings.model.kind == "dcn_v2"
    assert (settings.model.dim, settings.model.hidden) == (8, (64, 32))
    assert (settings.pipeline.tick_s, settings.pipeline.window_s, settings.pipeline.parts) == (1.0, 60.0, 2)
    assert (settings.train.on, settings.train.lr_linear, settings.train.encoding) == ("pane", None, "int8")
    assert (settings.gate.golden, settings.gate.golden_tolerance) == (64, 1e-5)
    assert (settings.serve.host, settings.serve.port) == ("127.0.0.1", 8500)


def test_one_source_for_both_streams_with_an_explicit_label() -> None:
    settings = config.parse(EXPLICIT)
    assert settings.feedback.label == "outcome"
    assert settings.label.wait_s is None
    assert settings.impression.source == settings.feedback.source


def test_settings_are_frozen_copied_and_pickled() -> None:
    settings = config.parse(FEED)
    with pytest.raises(Exception, match="frozen"):
        settings.loop.prior = 0.5  # type: ignore[misc]
    moved = settings.replace("loop", root="/elsewhere").with_source("/all.parquet", "parquet")
    assert (moved.loop.root, moved.loop.name) == ("/elsewhere", "feed")
    assert {stream.source for stream in moved.streams.values()} == {"/all.parquet"}
    assert settings.loop.root != "/elsewhere"
    assert pickle.loads(pickle.dumps(moved)) == moved


@pytest.mark.parametrize(
    ("old", "new", "message", "hint"),
    [
        ("wait_s", "wait", "[label] has no setting 'wait'", "did you mean 'wait_s'?"),
        ("[loop]", "[lop]", "there is no section [lop]", "did you mean 'loop'?"),
        ("max = 4", "max = 4, mxa = 3", "[features] tags has no setting 'mxa'", "did you mean 'max'?"),
        ("time_unit", "timeunit", "[streams.impression] has no setting 'timeunit'", "did you mean 'time_unit'?"),
        ("[label]", "[modle]\n[label]", "there is no section [modle]", "did you mean 'model'?"),
        ("wait_s = 30", 'wait_s = "thirty"', "[label] wait_s = 'thirty': must be a number", ""),
        ("wait_s = 30", "wait_s = true", "[label] wait_s = True: must be a number, not true or false", ""),
        ("wait_s = 30", "wait_s = -1", "[label] wait_s = -1: must be at least 0", ""),
        ("attribution_s = 1800", "attribution_s = inf", "[label] attribution_s = inf: must be a finite number", ""),
        ('name = "feed"', "name = 3", "[loop] name = 3: must be text in quotes", ""),
        ('name = "feed"', 'name = "a/b"', "[loop] name = 'a/b': may have letters, digits", ""),
        ('name = "feed"', "", "[loop] name is missing", "add name = …"),
        ('name = "feed"', 'name = "feed"\nprior = 1', "[loop] prior = 1: must be less than 1", ""),
        ('id = "request_id"\n', "", "[streams.impression] id is missing", "add id = …"),
        ('time_unit = "ms"', 'time_unit = "min"', "time_unit = 'min': must be 's', 'ms', 'us', 'ns' or 'iso'", ""),
        ('"category"', '"categroy"', "[features] surface: kind = 'categroy': must be 'id'", "did you mean 'category'?"),
        ('mode = "implicit"', 'mode = "implict"', "must be 'implicit' or 'explicit'", "did you mean 'implicit'?"),
        ('{ type = "impression" }', "{ type = [1] }", "where type = [1]: must be text, a number, true or false", ""),
        ('where = { type = "impression" }', 'time_zone = "Mars"', "'Mars' is not a time zone", "use an IANA name"),
        ('kind = "id"', 'kind = "id", max = 3', "[features] user: max does not belong to kind = 'id'", "column, path"),
        ('kind = "id"', 'kind = "id", column = "a", path = "b"', "column and path both say where", "keep one"),
        ('part = "hour", ', "", "[features] hour: part is missing", "add part ="),
        ('"surface"]', '"surfac"]', "cross 'u_x_s' is made of 'surfac', which is not a feature", "'surface'?"),
        ('"surface"]', '"price"]', "cannot be made of 'price': its kind is number", "define a bucket"),
        ("[1, 6, 24]", "[6, 1]", "the edges of bucket 'dear' must be numbers that grow", "makes the four buckets"),
        ('of = "price"', 'of = "u_x_s"', "[features] dear: of = 'u_x_s' is a cross", "name the column"),
        ("user ", "label", "a feature cannot be called 'label'", 'column = "label"'),
        ("wait_s = 30", "wait_s = 3000", "wait_s = 3000 is longer than attribution_s = 1800", "at least wait_s"),
        ("wait_s = 30\n", "", "[label] wait_s is missing", "add wait_s = 30"),
        ('"implicit"', '"explicit"', "[streams.click] does not say which column carries the label", 'add label = "…"'),
        (
            "streams.impression", "streams.impresion", "there is no [streams.impression]",
            "call it [streams.impression] instead of [streams.impresion]",
        ),
        ('id = "request_id"', 'id = "request_id"\nlabel = "y"', "a label comes with the feedback", "[streams.click]"),
        ('"events.jsonl"', '"ftp://h/x.csv"', "'ftp:' is not a kind of source", "use a path, or one of file:"),
        ("[label]", '[model]\nkind = "lr"\ndim = 4\n[label]', "dim has no meaning with kind = 'lr'", "remove dim"),
        ("[label]", "[model]\nhidden = []\n[label]", "[model] hidden = []: a tower needs a layer", "hidden = [64]"),
        ("[label]", "[model]\nhidden = [0]\n[label]", "[model] hidden[0] = 0: must be at least 1", ""),
        ("[label]", '[model]\nkind = "lr"\n[train]\nlr_dense = 1\n[label]', "lr_dense has no meaning", "remove"),
        ("[label]", "[serve]\nport = 99999\n[label]", "[serve] port = 99999: must be at most 65535", ""),
        ('kind = "id"', 'kind = "id", ttl = "7 weeks"', '[features] user: ttl = \'7 weeks\': must be like', ""),
        ('kind = "id"', 'kind = "id", ttl = 0', "[features] user: ttl = 0: must be at least 1", ""),
        ('kind = "id"', 'kind = "category", ttl = "7d"', "ttl does not belong to kind = 'category'", "takes column"),
        ("[label]", "[label", "is not valid TOML: Expected ']'", "a table starts with [name]"),
    ],
)  # fmt: skip
def test_mistakes_are_named(old: str, new: str, message: str, hint: str) -> None:
    assert old in FEED
    with pytest.raises(SettingsError) as error:
        config.parse(FEED.replace(old, new, 1), file="my.toml")
    assert type(error.value) is SettingsError
    assert str(error.value).startswith("my.toml")
    assert message in str(error.value)
    assert hint in error.value.hint
    assert error.value.context["file"] == "my.toml"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"events.jsonl"', '"kafka://host/topic"', "source = 'kafka://host/topic': reading from message queues"),
        ("[label]", "[train]\non_drift = true\n[label]", "[train] on_drift = True: this trigger"),
        ("[label]", "[gate]\nshift = 3\n[label]", "[gate] shift = 3: this rule of the gate"),
        ("[label]", '[model]\nkind = "deepfm"\n[label]', "[model] kind = 'deepfm': this model"),
        ("[label]", '[model]\nkind = "my.towers:wide"\n[label]', "towers of one's own"),
        ("[label]", "[train]\non_drift = true\n[label]", "this trigger"),
        ("[label]", '[serve]\nhost = "0.0.0.0"\n[label]', "[serve] host = '0.0.0.0': serving other machines"),
        ("wait_s = 30", 'wait_s = 30\nlate_positives = "fnw"', "training on late positives"),
        ("[label]", "[pipeline]\nsample_rate = 0.1\n[label]", "sampling is not implemented yet"),
        ("[label]", '[streams.buy]\nsource = "b.csv"\nid = "i"\ntime = "t"\n[label]', "more than one stream"),
    ],
)  # fmt: skip
def test_what_is_not_implemented_is_refused(old: str, new: str, message: str) -> None:
    with pytest.raises(NotImplementedYet) as error:
        config.parse(FEED.replace(old, new, 1), file="my.toml")
    assert message in str(error.value)
    assert "not implemented yet" in str(error.value)
    assert error.value.hint


def test_explicit_mode_takes_no_wait() -> None:
    with pytest.raises(SettingsError, match="wait_s has no meaning with mode = 'explicit'"):
        config.parse(EXPLICIT.replace("attribution_s", "wait_s = 3\nattribution_s"))
    with pytest.raises(SettingsError, match=r"label = 'outcome' has no meaning with .* mode = 'implicit'"):
        config.parse(EXPLICIT.replace('"explicit"', '"implicit"\nwait_s = 3'))


def test_there_must_be_feedback() -> None:
    one = FEED[: FEED.index("[streams.click]")] + FEED[FEED.index("[label]") :]
    with pytest.raises(SettingsError, match="there is no stream of feedback"):
        config.parse(one)


@pytest.mark.parametrize(
    ("span", "seconds"), [("9d", "777600"), ("1.5 h", "5400"), ("500ms", "0.5"), ("soon", "…"), ("", "…")]
)
def test_spans_with_a_unit_are_told_in_seconds(span: str, seconds: str) -> None:
    with pytest.raises(SettingsError) as error:
        config.parse(FEED.replace("attribution_s = 1800", f'attribution_s = "{span}"'))
    assert error.value.hint == f"write seconds, as a number: attribution_s = {seconds}"


def test_several_mistakes_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as error:
        config.parse(FEED.replace("wait_s", "wait").replace('name = "feed"', ""), file="my.toml")
    assert "has no setting 'wait'" in str(error.value)
    assert "(and 1 more: [loop] name is missing)" in str(error.value)


def test_the_environment_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "headrace.toml"
    file.write_text(FEED)
    monkeypatch.chdir(tmp_path.parent)
    monkeypatch.setenv("HEADRACE__LABEL__WAIT_S", "7")
    monkeypatch.setenv("HEADRACE__LOOP__ROOT", "./here")
    monkeypatch.setenv("HEADRACE__STREAMS__CLICK__SOURCE", "s3://bucket/clicks")
    monkeypatch.setenv("HEADRACE__MODEL__HIDDEN", "[16]")
    settings = config.load(file)
    assert settings.label.wait_s == 7
    assert settings.label.attribution_s == 1800
    assert settings.loop.root == str(tmp_path.parent / "here")
    assert settings.feedback.source == "s3://bucket/clicks"
    assert settings.impression.source == str(tmp_path / "events.jsonl")
    assert settings.model.hidden == (16,)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("HEADRACE__LABEL__WAIT", "3", "the environment variable HEADRACE__LABEL__WAIT: [label] has no setting 'wait'"),
        ("HEADRACE__LABEL__WAIT_S", "x", "the environment variable HEADRACE__LABEL__WAIT_S: [label] wait_s = 'x'"),
        ("HEADRACE__LABLE__WAIT_S", "3", "the environment variable HEADRACE__LABLE__WAIT_S names no section"),
        ("HEADRACE__MODEL__HIDDEN", "[64", "a HEADRACE__ variable cannot be read"),
    ],
)
def test_mistakes_in_the_environment(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as error:
        config.parse(FEED)
    assert str(error.value).startswith(message)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no settings file") as error:
        config.load(tmp_path / "none.toml")
    assert "headrace init" in error.value.hint
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=r"binary\.toml is not UTF-8") as error:
        config.load(binary)
    assert error.value.hint == "save it as UTF-8"
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        config.load(tmp_path)


def test_a_file_saved_on_windows_is_read(tmp_path: Path) -> None:
    """A byte order mark before the text, CRLF behind each line."""
    saved = tmp_path / "headrace.toml"
    saved.write_bytes(b"\xef\xbb\xbf" + FEED.replace("\n", "\r\n").encode())
    assert config.load(saved).label == config.parse(FEED).label


def test_paths_are_anchored_in_the_files_folder() -> None:
    text = FEED.replace('"events.jsonl"', '"file:events/"', 1).replace('"events.jsonl"', '"gs://b/x.csv"', 1)
    settings = config.parse(text + '[track]\nuri = "sqlite:///runs/m.db"\n', folder=Path("/data"))
    assert settings.impression.source == "/data/events/"
    assert settings.feedback.source == "gs://b/x.csv"
    assert settings.track.uri == "sqlite:////data/runs/m.db"


def test_reading_settings_brings_no_arrow() -> None:
    code = (
        "import sys, headrace.config as c; c.parse(sys.stdin.read()); print(*{'numpy', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], input=FEED, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ('"event.id"', ("event", "id")),
        ('{ path = "event.id" }', ("event", "id")),
        ('{ column = "event.id" }', ("event.id",)),
        ("'\"event.id\"'", ("event.id",)),
    ],
)
def test_places_inside_objects_and_columns_with_dots(written: str, path: tuple[str, ...]) -> None:
    settings = config.parse(FEED.replace('id = "request_id"', f"id = {written}", 1))
    assert path_of(settings.impression.id) == path
    stream = config.parse(settings_text := FEED.replace('time = "shown_at"', f"time = {written}", 1)).impression
    assert path_of(stream.time) == path
    assert config.parse(settings_text.replace('of = "shown_at"', 'column = "x"')).impression == stream


@pytest.mark.parametrize(
    "where",
    ['{ event.type = "a" }', '{ "event.type" = "a" }', '{ event = { type = "a" } }'],
)
def test_where_takes_toml_tables_as_places(where: str) -> None:
    settings = config.parse(FEED.replace('{ type = "impression" }', where, 1))
    assert settings.impression.where == {"event.type": "a"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('id = "request_id"', 'id = "event..id"', "[streams.impression] id = 'event..id': is no place in an event"),
        ('id = "request_id"', 'id = { colum = "a" }', '[streams.impression] id: must be text, or { column = "a.b" }'),
        ('id = "request_id"', "id = {}", "[streams.impression] id: must be text"),
        ('{ type = "impression" }', '{ ".type" = "a" }', "[streams.impression] where: is no place in an event"),
        ('{ type = "impression" }', "{ event.type = [1] }", "must be text, a number, true or false"),
    ],
)
def test_what_is_no_place(old: str, new: str, said: str) -> None:
    with pytest.raises(SettingsError) as wrong:
        config.parse(FEED.replace(old, new, 1))
    assert said in str(wrong.value)
