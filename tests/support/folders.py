"""A folder of event files that is read tick by tick, as a pipeline does."""

import json

from headrace.features import Feature
from pipelines.events import Limits, Stream
from pipelines.parse import parse
from pipelines.sources.files import FileSource

ROWS = [{"id": f"e{i}", "t": 1_700_000_000 + i, "user": i % 7, "x": i / 3 if i % 5 else None} for i in range(1_000)]
STREAM = Stream(
    name="impression",
    role="impression",
    id="id",
    time="t",
    time_unit="s",
    features=(Feature("user", "id", ("user",)), Feature("x", "number", ("x",))),
)
LIMITS = Limits(65_536, 1 << 62)


class Reader:
    """Reads a folder tick by tick as a pipeline does; `ranges` is what its records would say."""

    def __init__(self, folder, fresh=False):
        self.folder, self.fresh = folder, fresh
        self.source = FileSource(str(folder))
        self.at, self.identity, self.aside = self.source.first("files"), None, None
        self.events, self.refused, self.ranges = [], [], []

    def tick(self, budget=1 << 30, drain=False):
        source = self.source = FileSource(str(self.folder)) if self.fresh else self.source
        reach = source.reach("files", self.at, self.identity, max_bytes=budget, drain=drain, aside=self.aside)
        made = self.at, reach.position, json.loads(json.dumps(reach.identity))
        if made[0] != made[1]:
            assert reach.size > 0
            self.ranges.append(made)
            events, refused = replayed(source, *made)
            self.events += events
            self.refused += refused
        self.at, self.identity = made[1:]
        self.aside = self.aside if reach.aside is None else reach.aside
        return reach


def replayed(source, start, end, identity):
    """(events, refused) of one range."""
    events, refused = [], []
    for span in source.spans("files", start, end, identity):
        found = parse(STREAM, LIMITS, source.read(span, STREAM.columns))
        events += [row for table in found.events for row in table.to_pylist()]
        refused += [(f"{span.file}:{one.offset}", one.reason) for one in found.refused]
    return events, refused


def known(events):
    return [(e["_id"], e["_ts"], int(e["user"]), None if e["x"] is None else round(e["x"], 9)) for e in events]


WANTED = [(r["id"], r["t"] * 1_000_000, r["user"], None if r["x"] is None else round(r["x"], 9)) for r in ROWS]
