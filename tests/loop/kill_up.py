"""Kills all processes of a running `headrace up` again and again while its files grow, then looks at what it made.

One JSON line. A generator process appends events all the time, in the order of their times. Each incarnation of `up`
is killed with all its children by SIGKILL, either while they load or soon after a version was committed. The last one
is left alone until it is fresh again; then the files end, and the rest is read and learned.

    python tests/loop/kill_up.py --kills 100

equal      the rows are those of one batch run over the same files, in a root of its own
sums       every record's events are in exactly one class each, and all bytes of the files were read
gapless    the versions are 0, 1, 2, …, and each shard record was learned once
digest     the published table, folded from its files, has the digest of the newest record
answer_s   from the start of `up` to the first answer of its server
fresh_s    from the start of the last one to an answer that knows events since then, and is not older than FRESH_S
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace import clock, status
from headrace.delta import load_delta
from headrace.errors import HeadraceError
from headrace.loop import open_loop
from headrace.published import PublishedTable
from headrace.shard import BLANK, ShardRecord, read_shard
from headrace.store import open_store
from headrace.version import VersionRecord, path_to, trained_in, union
from paramserver.client import Client

if TYPE_CHECKING:
    from headrace.loop import Loop

WAIT_MS, ATTRIBUTION_MS = 1_000, 5_000
FRESH_S = 10.0
LONGEST_S = 120.0
STEP_S = 0.05
ROLES = {"impression": "impression", "click": "feedback"}
NAMES = ["impression_id", "event_time_us", "label", "row_kind", "emit_time_us"]
SETTINGS = """[loop]
name = "torture"
root = "{root}"
[streams.impression]
source = "i.jsonl"
id = "id"
time = "at"
time_unit = "ms"
[streams.click]
source = "c.jsonl"
id = "id"
time = "at"
time_unit = "ms"
[label]
mode = "implicit"
wait_s = 1
attribution_s = 5
[features]
user = {{ kind = "id" }}
[pipeline]
disorder_s = 1
[model]
kind = "lr"
[retention]
versions_s = 1e9
rollback_s = 1e9
held_s = 1e9
"""


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--kills", type=int, default=3)
    options.add_argument("--seed", type=int, default=int(time.time()))
    options.add_argument("--generate", type=Path)
    given = options.parse_args()
    if given.generate is not None:
        return generate(given.generate, random.Random(given.seed))
    with tempfile.TemporaryDirectory() as folder:
        result = torture(Path(folder), given.kills, given.seed)
    print(json.dumps({"seed": given.seed, **result}))
    return 0 if all(result[name] for name in ("equal", "sums", "gapless", "digest")) else 1


def generate(folder: Path, rng: random.Random) -> int:
    """Appends about 200 impressions a second and their clicks, in the order of their times, until it is ended."""
    due: list[tuple[int, str]] = []
    began, parent = time.time_ns() // 1_000_000, os.getppid()
    with (folder / "i.jsonl").open("a") as shown, (folder / "c.jsonl").open("a") as clicked:
        for step in range(1 << 40):
            if os.getppid() != parent:
                break
            now = time.time_ns() // 1_000_000
            for k in range(int(200 * STEP_S)):
                id_, user = f"{began}-{step}-{k}", rng.randrange(50)
                shown.write(json.dumps({"id": id_, "at": now, "user": f"u{user}"}) + "\n")
                if rng.random() < 0.1 + 0.4 * (user % 2):
                    heapq.heappush(due, (now + rng.choice([0, 300, WAIT_MS, WAIT_MS + 1, ATTRIBUTION_MS]), id_))
            shown.flush()
            while due and due[0][0] <= now:
                at, id_ = heapq.heappop(due)
                clicked.write(json.dumps({"id": id_, "at": at}) + "\n")
            clicked.flush()
            time.sleep(STEP_S)
    return 0


def torture(folder: Path, kills: int, seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    for root, name in (("./loop", "headrace.toml"), ("./batch", "batch.toml")):
        (folder / name).write_text(SETTINGS.format(root=root))
    for name in ("i.jsonl", "c.jsonl"):
        (folder / name).touch()
    answers: list[float] = []
    generator = _python(folder, str(Path(__file__).resolve()), "--generate", str(folder), "--seed", str(seed))
    try:
        answers += [_incarnation(folder, rng, learn=kill % 2 == 1) for kill in range(kills)]
        fresh_s = _last(folder, answers)
    finally:
        generator.kill()
        generator.wait()
    _whole(folder)
    _headrace(folder, "pipeline", "run", "--drain")
    _headrace(folder, "train")
    _headrace(folder, "pipeline", "run", "--drain", "-c", "batch.toml")
    return {
        "kills": kills,
        "answer_s": {"p50": round(statistics.median(answers), 2), "max": round(max(answers), 2)},
        "fresh_s": round(fresh_s, 1),
        **_verdict(folder),
    }


def _verdict(folder: Path) -> dict[str, Any]:
    loop, batch = _loop(folder), _loop(folder, "batch")
    records, once = _records(loop), _records(batch)
    rows, expected = _rows(loop, records), _rows(batch, once)
    read = {one.stream: one.end["offset"] for one in records[-1].ranges}
    log = loop.version_log()
    versions = [VersionRecord.from_entry(log.read(seq)) for seq in log.seqs()]
    trained = Counter(seq for one in versions for low, high in one.trained for seq in range(low, high))
    learned = trained_in(versions[-1].version, lambda seq: versions[seq])
    return {
        "records": len(records),
        "rows": sum(rows.values()),
        "versions": len(versions),
        "lost": sum((expected - rows).values()),
        "twice": sum((rows - expected).values()),
        "equal": rows == expected,
        "sums": _sums(records) and read == {s: (folder / f"{s[0]}.jsonl").stat().st_size for s in ROLES},
        "gapless": [one.version for one in versions] == list(range(len(versions)))
        and max(trained.values()) == 1
        and union(learned, versions[-1].held_now) == ((0, len(records)),),
        "digest": _table(loop, versions).digest().to_json() == versions[-1].digest,
    }


def _incarnation(folder: Path, rng: random.Random, *, learn: bool) -> float:
    """One life of `up`, killed while it loads, or (learn) soon after it committed a version; seconds to an answer."""
    up = _up(folder)
    answer_s = _until(up, lambda: _answered(folder, up.pid) is not None)
    if learn:
        head = _loop(folder).version_log().head()
        before = head.seq if head is not None else 0
        _until(up, lambda: (now := _loop(folder).version_log().head()) is not None and now.seq > before)
        time.sleep(rng.random() * 3)
    else:
        time.sleep(rng.random() * 8)
    pids = [up.pid, *_children(up.pid)]
    rng.shuffle(pids)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    up.wait()
    return answer_s


def _last(folder: Path, answers: list[float]) -> float:
    """The life that nobody disturbs, until it is fresh; seconds until then."""
    up, began = _up(folder), time.monotonic()

    def fresh() -> bool:
        age_s = _answered(folder, up.pid)
        return age_s is not None and age_s <= min(FRESH_S, time.monotonic() - began)

    answers.append(_until(up, lambda: _answered(folder, up.pid) is not None))
    fresh_s = answers[-1] + _until(up, fresh)
    up.terminate()
    up.wait(timeout=LONGEST_S)
    return fresh_s


def _answered(folder: Path, up: int) -> float | None:
    """How old an answer of the server of this `up` is, in s; infinite: nothing was learned yet; None: no answer."""
    children = _children(up)
    for beat in status.heartbeats(open_store(str(folder / "loop"))):
        if beat.role == "server" and beat.pid in children and beat.info.get("address"):
            client = Client(beat.info["address"], deadline_s=1.0)
            try:
                answer = client.predict({"user": "u1"})
            except HeadraceError:
                return None
            finally:
                client.close()
            if answer.watermark_us is None:
                return float("inf")
            return (clock.now_us() - answer.watermark_us) / clock.SECOND_US
    return None


def _until(up: subprocess.Popen[bytes], holds: Any) -> float:
    began = time.monotonic()
    while not holds():
        if up.poll() is not None:
            raise SystemExit(f"`headrace up` ended with {up.returncode}")
        if time.monotonic() - began > LONGEST_S:
            raise SystemExit("nothing happened for too long")
        time.sleep(0.05)
    return time.monotonic() - began


def _children(pid: int) -> list[int]:
    """Linux: processes whose parent is `pid`."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == pid:
            found.append(int(stat.parent.name))
    return found


def _up(folder: Path) -> subprocess.Popen[bytes]:
    return _python(folder, "-m", "headrace.cli", "up", "--port", "0", "--no-track")


def _python(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    with (folder / "talk.log").open("ab") as talk:
        return subprocess.Popen([sys.executable, *arguments], cwd=folder, stdout=talk, stderr=talk)


def _headrace(folder: Path, *arguments: str) -> None:
    done = _python(folder, "-m", "headrace.cli", *arguments)
    if done.wait(timeout=10 * LONGEST_S):
        talk = (folder / "talk.log").read_text()[-2_000:]
        raise SystemExit(f"headrace {' '.join(arguments)} ended with {done.returncode}: {talk}")


def _whole(folder: Path) -> None:
    """The killed generator may have left half a line: it never happened."""
    for name in ("i.jsonl", "c.jsonl"):
        data = (folder / name).read_bytes()
        os.truncate(folder / name, data.rfind(b"\n") + 1)


def _loop(folder: Path, root: str = "loop") -> Loop:
    return open_loop(open_store(str(folder / root)), "torture")


def _records(loop: Loop) -> list[ShardRecord]:
    log = loop.shard_log()
    return [ShardRecord.from_entry(log.read(seq)) for seq in log.seqs()]


def _sums(records: list[ShardRecord]) -> bool:
    """`check` raises AccountingError where they do not hold."""
    for previous, record in zip([BLANK, *records], records, strict=False):
        record.check(previous, ROLES)
    return True


def _rows(loop: Loop, records: list[ShardRecord]) -> Counter[Any]:
    tables = (read_shard(loop.store, shard, NAMES) for record in records for shard in record.shards)
    return Counter(tuple(one[name] for name in NAMES) for table in tables for one in table.to_pylist())


def _table(loop: Loop, versions: list[VersionRecord]) -> PublishedTable:
    path = path_to(versions[-1].version, lambda seq: versions[seq], [versions[-1].snapshot])
    table = PublishedTable()
    files = [*([path.snapshot] if path.snapshot else []), *(one.delta for one in path.deltas if one.delta)]
    for file in files:
        table.apply(load_delta(loop.store, file.path, file.sha256))
    return table


if __name__ == "__main__":
    sys.exit(main())
