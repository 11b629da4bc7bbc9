"""The MLflow follower, on sqlite: every version once, whatever interrupts it."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from handmade import SCHEMA, SPECS, change_of
from matplotlib.figure import Figure
from settings import ITEM, PRICE, TAGS, UNREAD, USER, settings_text

from headrace import status
from headrace.config import parse
from headrace.delta import Delta, write_delta
from headrace.errors import MissingLibrary, TrainingError
from headrace.loop import Loop, open_loop
from headrace.record import sha256_of
from headrace.store import open_store
from headrace.version import Kept, NamedFile, VersionRecord

pytest.importorskip("mlflow")

from sqlalchemy.exc import OperationalError

from training.registry import VERSION, Registry
from training.tracking import Tracker, open_client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.log import Entry

pytestmark = pytest.mark.filterwarnings(  # MLflow's own use of its libraries
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)

PLACE: dict[str, str] = {}  # where `settings` say that MLflow is: the files go beside its database
DAY_US = 86_400_000_000
START_US = 1_600 * DAY_US * 10 + 82_800_000_000  # 23:00, so that versions cross midnight
SETTINGS = settings_text(
    USER, TAGS, ITEM, PRICE, **UNREAD, impression={"source": "s3://user:SECRET@bucket/none.parquet"}
)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    PLACE["uri"] = f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"
    return PLACE["uri"]


@pytest.fixture
def client(uri: str) -> Any:
    return open_client(uri)


def settings(name: str, **track: Any) -> Any:
    track = {"models_every_s": 0.0, "uri": PLACE.get("uri", "http://127.0.0.1")} | track
    return parse(SETTINGS).replace("loop", name=name).replace("track", experiment=name, **track)


def loop_with(name: str, versions: int, snapshots: tuple[int, ...] = (2, 5)) -> Loop:
    loop = open_loop(open_store(f"memory://{name}"), name)
    append(loop, range(versions), snapshots)
    return loop


def snapshot(loop: Loop, of: int) -> Kept:
    data = write_delta(Delta(of, None, tuple(change_of(spec, {7: [0.5] * spec.width}) for spec in SPECS)))
    path = f"models/default/params/{of}-s"
    loop.store.delete(path)
    loop.store.write(path, data)
    return Kept(of, path, sha256_of(data), len(data))


def append(loop: Loop, versions: range, snapshots: tuple[int, ...] = (), **more: Any) -> None:
    log = loop.version_log()
    head: Entry | None = log.head()
    for version in versions:
        newest = max((of for of in snapshots if of <= version), default=None)
        record = VersionRecord(
            version=version,
            kind="delta" if version else "start",
            base=version - 1 if version else None,
            lineage=0,
            model={"kind": "lr"},
            schema=SCHEMA.to_json(),
            prior=0.1,
            digest={"rows": version * 10, "sum": "0", "tower": ""},
            created_at_us=START_US + version * 900_000_000,
            code="0",
            watermark_us=START_US + version * 900_000_000 - 5_000_000,
            delta=NamedFile(f"models/default/params/{version}", "00", 100 + version) if version else None,
            evaluation={"log_loss": 0.5 - version / 100, "live": {"auc": 0.6}, "none": None},
            snapshot=None if newest is None else snapshot(loop, newest),
            **more,
        )
        head = log.append(record.kind, record.to_body(), head)


def history(client: Any, name: str, metric: str) -> list[tuple[int, int, float]]:
    experiment = client.get_experiment_by_name(name)
    runs = client.search_runs([experiment.experiment_id])
    points = [point for run in runs for point in client.get_metric_history(run.info.run_id, metric)]
    return sorted((point.step, point.timestamp, round(point.value, 6)) for point in points)


def model_versions(client: Any, name: str) -> list[str]:
    return sorted(version.tags[VERSION] for version in client.search_model_versions(f"name = '{name}'"))


def expected(versions: int) -> list[tuple[int, int, float]]:
    return [(v, (START_US + v * 900_000_000) // 1_000, round(0.5 - v / 100, 6)) for v in range(versions)]


def test_versions_are_steps_of_one_run_a_day(client: Any) -> None:
    loop = loop_with("days", 7)
    tracker = Tracker(loop, settings("days"), connect=lambda: client)
    assert (tracker.step(), tracker.step()) == (7, 0)
    assert history(client, "days", "log_loss") == expected(7)
    assert [value for _, _, value in history(client, "days", "freshness_s")] == [5.0] * 7
    assert [value for _, _, value in history(client, "days", "live/auc")] == [0.6] * 7
    assert history(client, "days", "none") == []
    runs = client.search_runs([client.get_experiment_by_name("days").experiment_id], order_by=["attributes.start_time"])
    assert [run.info.status for run in runs] == ["FINISHED", "RUNNING"]  # 23:00 to 00:30: two days
    assert [run.data.tags["headrace.day"] < "2100" for run in runs] == [True, True]


def test_snapshots_become_model_versions_with_aliases(client: Any) -> None:
    loop = loop_with("models", 7)
    Tracker(loop, settings("models"), connect=lambda: client).step()
    assert model_versions(client, "models") == ["2", "5"]
    champion = client.get_model_version_by_alias("models", "champion")
    assert champion.tags[VERSION] == "5"
    assert champion.source.endswith("models/5")
    assert client.get_model_version_by_alias("models", "previous").tags[VERSION] == "2"


def test_a_new_process_goes_on_where_the_last_one_stopped(client: Any) -> None:
    loop = loop_with("resume", 3)
    assert Tracker(loop, settings("resume"), connect=lambda: client).step() == 3
    append(loop, range(3, 6), (2, 5))
    assert Tracker(loop, settings("resume"), connect=lambda: client).step() == 3
    assert history(client, "resume", "log_loss") == expected(6)


@pytest.fixture
def light(light_models: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models of one file and empty curves: what is in them is for test_registry.py and test_dayrun.py."""
    monkeypatch.setattr("training.curves.drawn", lambda *_: Figure((1, 1), dpi=10))


class Killed(BaseException):
    """Stands for kill -9: nothing may catch it."""


class Mortal:
    """A client that dies right after its n-th writing call."""

    WRITES = frozenset(
        [
            "create_experiment",
            "create_run",
            "create_registered_model",
            "create_model_version",
            "set_registered_model_alias",
            "log_batch",
            "set_tag",
            "set_terminated",
            "update_run",
            "log_artifacts",
            "log_inputs",
            "log_dict",
            "log_figure",
        ]
    )

    def __init__(self, client: Any, lives: int) -> None:
        self._client, self._lives = client, lives

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if name not in self.WRITES:
            return method

        def call(*args: Any, **kwargs: Any) -> Any:
            answer = method(*args, **kwargs)
            self._lives -= 1
            if self._lives == 0:
                raise Killed
            return answer

        return call


def deaths(client: Any, name: str, step: int = 1) -> Iterator[int]:
    """Tracks a fresh loop, dying after the first, second, … (or each `step`-th) write, until one run needs no more."""
    for lives in range(1, 60, step):
        loop = loop_with(f"{name}{lives}", 7)
        try:
            Tracker(loop, settings(f"{name}{lives}"), connect=lambda lives=lives: Mortal(client, lives)).step()
        except Killed:
            Tracker(loop, settings(f"{name}{lives}"), connect=lambda: client).step()
            yield lives
        else:
            return


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_between_any_two_steps_each_version_is_there_once(client: Any, step: int) -> None:
    killed = list(deaths(client, f"killed{step}-", step))
    assert len(killed) >= 20 // step
    for lives in killed:
        name = f"killed{step}-{lives}"
        assert history(client, name, "log_loss") == expected(7), lives
        assert model_versions(client, name) in (["2", "5"], ["5"]), lives  # the newest snapshot, and no other twice
        assert client.get_model_version_by_alias(name, "champion").tags[VERSION] == "5"


@pytest.mark.usefixtures("light")
def test_twin_without_looking_up_model_versions_they_come_twice(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = Registry.__init__

    def forgetful(self: Registry, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        self._newest = None

    monkeypatch.setattr(Registry, "__init__", forgetful)
    assert any(model_versions(client, f"twin{lives}").count("5") > 1 for lives in deaths(client, "twin"))


@pytest.mark.usefixtures("light")
def test_twin_with_the_cursor_first_versions_are_lost(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    log_day = Tracker._log_day

    def cursor_first(self: Tracker, records: Any) -> None:
        self._days.open(records[0][1])
        self._days.advance(records[-1][0].cursor())
        log_day(self, records)

    monkeypatch.setattr(Tracker, "_log_day", cursor_first)
    assert any(history(client, f"first{lives}", "log_loss") != expected(7) for lives in deaths(client, "first"))


def test_refusals_are_waited_out(client: Any) -> None:
    from mlflow.exceptions import MlflowException

    loop = loop_with("down", 3)
    tracker = Tracker(loop, settings("down"), connect=lambda: client)
    refusals = iter([True, True, False])
    step, stopped = tracker.step, [False]

    def sometimes() -> int:
        if next(refusals):
            raise MlflowException("database is locked")
        stopped[0] = True
        return step()

    tracker.step = sometimes  # type: ignore[method-assign]
    tracker.run(stop=lambda: stopped[0], poll_s=0.01)
    assert history(client, "down", "log_loss") == expected(3)


def test_a_rollback_moves_the_champion_back(client: Any) -> None:
    loop = loop_with("back", 7)
    tracker = Tracker(loop, settings("back"), connect=lambda: client)
    tracker.step()
    log = loop.version_log()
    head = log.head()
    assert head is not None
    record = VersionRecord.from_entry(head)
    body = {**record.to_body(), "base": 6, "to": 3}
    log.append("rollback", body, head)
    tracker.step()
    assert client.get_model_version_by_alias("back", "champion").tags[VERSION] == "2"


class Away:
    """MLflow while it is away: `connect` gives what `down` gives, and the real client once it is back."""

    def __init__(self, client: Any, down: Any) -> None:
        self._client, self._down, self.back = client, down, False

    def __call__(self) -> Any:
        return self._client if self.back else self._down()


class Full:
    """A client on a full disk: reading works, every write fails."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        if name not in Mortal.WRITES:
            return getattr(self._client, name)

        def refuse(*_: Any, **__: Any) -> Any:
            raise OperationalError(name, {}, OSError(errno.ENOSPC, "database or disk is full"))

        return refuse


def refusing() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def hanging(stack: contextlib.ExitStack) -> str:
    """Accepts connections and never answers."""
    server = stack.enter_context(socket.socket())
    server.bind(("127.0.0.1", 0))
    server.listen(64)
    return f"http://127.0.0.1:{server.getsockname()[1]}"


def wait_for(condition: Any) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, "in vain"
        time.sleep(0.01)


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("how", ["refused", "hung", "full"])
def test_twenty_versions_while_mlflow_is_away_are_logged_once_when_it_is_back(
    client: Any, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    loop = loop_with(how, 1)
    stopped = threading.Event()
    with contextlib.ExitStack() as stack:
        urls = {"refused": refusing, "hung": lambda: hanging(stack)}
        uri = urls[how]() if how in urls else ""
        away = Away(client, lambda: open_client(uri) if uri else Full(client))
        tracker = Tracker(loop, settings(how), connect=away)
        thread = threading.Thread(target=lambda: tracker.run(stop=stopped.is_set, poll_s=0.01))
        thread.start()
        wait_for(lambda: tracker.problem)
        append(loop, range(1, 21), (2, 5))  # the log goes on: nothing here waits for MLflow
        assert tracker.problem
        away.back = True
        wait_for(lambda: len(history(client, how, "log_loss")) == 21 if client.get_experiment_by_name(how) else False)
        wait_for(lambda: not tracker.problem)
        (pulse,) = status.heartbeats(loop.store)
        assert pulse.role == "tracker"
        stopped.set()
        thread.join()
    assert history(client, how, "log_loss") == expected(21)
    assert model_versions(client, how) == ["2", "5"]


def test_it_ends_although_mlflow_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "600")
    monkeypatch.setattr("training.tracking.GRACE_S", 0.1)
    stopped = threading.Event()
    with contextlib.ExitStack() as stack:
        uri = hanging(stack)
        tried = threading.Event()

        def connect() -> Any:
            tried.set()
            return open_client(uri)

        tracker = Tracker(loop_with("stuck", 2), settings("stuck"), connect=connect)
        thread = threading.Thread(target=lambda: tracker.run(stop=stopped.is_set))
        thread.start()
        wait_for(tried.is_set)
        stopped.set()
        thread.join(60)
        assert not thread.is_alive()


def test_after_a_long_absence_it_logs_what_is_left_and_says_what_it_missed(client: Any, caplog: Any) -> None:
    loop = loop_with("late", 3)
    Tracker(loop, settings("late"), connect=lambda: client).step()
    append(loop, range(3, 10))
    for seq in range(6):
        loop.store.delete(f"models/default/log/{seq:012d}.json")
    tracker = Tracker(loop, settings("late"), connect=lambda: client)
    assert tracker.step() == 4
    assert tracker.missed == 3
    assert "track.missed versions=3: version 2 is gone, as are all before version 6" in caplog.text
    assert [step for step, _, _ in history(client, "late", "log_loss")] == [0, 1, 2, 6, 7, 8, 9]
    assert tracker.step() == 0


@pytest.mark.usefixtures("light")
def test_what_came_in_a_long_absence_is_logged_some_at_a_time(client: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("training.tracking.AT_ONCE", 3)
    held: list[int] = []
    log_day = Tracker._log_day
    monkeypatch.setattr(Tracker, "_log_day", lambda self, records: held.append(len(records)) or log_day(self, records))
    loop = loop_with("some", 9)
    assert Tracker(loop, settings("some"), connect=lambda: client).step() == 9
    assert (sum(held), max(held)) == (9, 3)
    assert history(client, "some", "log_loss") == expected(9)
    assert model_versions(client, "some") == ["2", "5"]


def test_a_database_whose_driver_is_not_there_is_named_with_what_to_install() -> None:
    with pytest.raises(MissingLibrary, match=r"begins with mssql:") as error:
        open_client("mssql://somewhere/mlflow")
    assert "pip install 'headrace[postgres]'" in str(error.value.hint)


def test_a_new_root_of_the_same_name_begins_anew(client: Any) -> None:
    Tracker(loop_with("again", 5), settings("again"), connect=lambda: client).step()
    other = open_loop(open_store("memory://again-2"), "again", now_us=lambda: 7)
    append(other, range(3))
    assert Tracker(other, settings("again"), connect=lambda: client).step() == 3
    runs = client.search_runs([client.get_experiment_by_name("again").experiment_id])
    assert len({run.data.tags["headrace.root"] for run in runs}) == 2


@pytest.mark.usefixtures("light")
def test_figures_and_cursor_do_not_wait_for_models(client: Any) -> None:
    class NoFiles(Full):
        def __getattr__(self, name: str) -> Any:
            return super().__getattr__(name) if name == "log_artifacts" else getattr(self._client, name)

    loop = loop_with("files", 7)
    with pytest.raises(OperationalError):
        Tracker(loop, settings("files"), connect=lambda: NoFiles(client)).step()
    assert history(client, "files", "log_loss") == expected(7)
    assert Tracker(loop, settings("files"), connect=lambda: client).step() == 0
    assert model_versions(client, "files") == ["5"]  # of the newest record: without it the model would be lost


def test_any_refusal_is_waited_out_and_shows_no_password(client: Any) -> None:
    loop, tried = loop_with("odd", 1), threading.Event()

    def refuse() -> Any:
        tried.set()
        raise RuntimeError("boto: SECRET is wrong for http://bob:SECRET@mlflow/")

    tracker = Tracker(loop, settings("odd", uri="http://bob:SECRET@mlflow/"), connect=refuse)
    tracker.run(stop=tried.is_set, poll_s=0.01)
    wait_for(lambda: tracker.problem)
    assert tracker.problem == "boto: *** is wrong for http://bob:***@mlflow/"
    with pytest.raises(TrainingError, match=r"MLflow at http://bob:\*\*\*@mlflow/ refuses: boto"):
        tracker.once()
