"""The joiner against two brute-force references in plain Python: one that sees everything at once, and one that goes
tick by tick with marks on its events. Within the disorder bound the rows are the same however the ticks are cut."""

from __future__ import annotations

import random
import struct
from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa
import pytest

from headrace.errors import SettingsError
from pipelines import admit, compaction, join, label, pending
from pipelines.label import LabelPolicy
from pipelines.runs import Run

END = (1 << 63) - 1
START = -(1 << 63)
IMPRESSIONS = pa.schema(
    [
        ("_id", pa.string()),
        ("_ts", pa.int64()),
        ("_partition", pa.int32()),
        ("_offset", pa.int64()),
        ("user", pa.int64()),
        ("tags", pa.list_(pa.int64())),
        ("price", pa.float32()),
    ]
)
FEEDBACK = pa.schema(
    [
        ("_id", pa.string()),
        ("_ts", pa.int64()),
        ("_partition", pa.int32()),
        ("_offset", pa.int64()),
        ("_label", pa.float32()),
    ]
)
MASK = (1 << 64) - 1


def mix(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) & MASK
    return x ^ x >> 31


def tie_of(user, tags, price):
    """content_hash, one value at a time."""
    tagged = (len(tags) + sum(mix(tag ^ mix(place)) for place, tag in enumerate(tags))) & MASK
    priced = 0xA5A5A5A5A5A5A5A5 if price is None else struct.unpack("<I", struct.pack("<f", price))[0]
    total = 0
    for cell in (user, tagged, priced):
        total = mix(total ^ cell)
    return total


@dataclass(eq=False)
class Shown:
    id: str
    ts: int
    partition: int
    offset: int
    features: tuple
    tie: int = 0
    fate: str = "pending"
    label: float | None = None
    taken: list = field(default_factory=list)

    def __post_init__(self):
        self.tie = tie_of(*self.features)

    @property
    def rank(self):
        return self.ts, self.tie


@dataclass(eq=False)
class Said:
    id: str
    ts: int
    partition: int
    offset: int
    label: float | None
    fate: str = "pending"

    @property
    def rank(self):
        return self.ts, self.label or 0.0


def row(shown, emit, label, kind, delay):
    return (shown.id, shown.ts, emit, label, kind, delay, *shown.features)


class Reference:
    """Every event is an object with its fate; every tick visits all of them."""

    def __init__(self, policy):
        self.policy, self.shown, self.said, self.before = policy, [], [], START

    def near(self, a, b):
        return a.id == b.id and abs(a.ts - b.ts) <= self.policy.attribution_us

    def lives(self, event):
        return event.ts + self.policy.life_us >= self.before

    def answers(self, shown):
        found = [
            s
            for s in self.said
            if s.id == shown.id
            and s.fate not in ("late", "duplicate")
            and 0 <= s.ts - shown.ts <= self.policy.attribution_us
        ]
        return sorted(found, key=lambda s: s.rank)

    def tick(self, shown, said, watermark):
        rows, refused = [], []
        self.admit_shown(shown, refused)
        self.admit_said(said, refused)
        for one in self.shown:
            if one.fate in ("late", "duplicate") or not self.lives(one):
                continue
            rows += self.explicit(one, watermark) if self.policy.explicit else self.implicit(one, watermark)
        for one in self.said:
            if one.fate == "pending" and one.ts + self.policy.life_us < watermark:
                after = (s for s in self.shown if s.id == one.id and s.fate != "late")
                if any(0 < s.ts - one.ts <= self.policy.attribution_us for s in after):
                    one.fate = "invalid"
                    refused.append(("feedback", one.partition, one.offset, "before_impression"))
                else:
                    one.fate = "expired"
        self.before = max(self.before, watermark)
        return rows, refused

    def admit_shown(self, new, refused):
        for one in new:
            if not self.lives(one):
                one.fate = "late"
                refused.append(("impression", one.partition, one.offset, "late"))
        new = [one for one in new if one.fate != "late"]
        old = [one for one in self.shown if self.lives(one) and one.fate != "late"]
        duplicates = []
        for place, one in enumerate(new):
            others = [o for o in old + new if o is not one and self.near(o, one)]
            smaller = any(o.rank < one.rank for o in others)
            copy = any(o.rank == one.rank for o in old + new[:place] if self.near(o, one))
            blocked = any(o.fate == "emitted" for o in others if o.rank > one.rank)
            if smaller or copy or blocked:
                duplicates.append(one)
        for one in old:
            fell = one.fate == "pending" and any(self.near(o, one) and o.rank < one.rank for o in new)
            duplicates += [one] if fell else []
        for one in duplicates:
            one.fate = "duplicate"
        self.shown += new

    def admit_said(self, new, refused):
        seen = {(one.id, one.rank) for one in self.said if one.fate not in ("late", "duplicate")}
        for one in new:
            if not self.lives(one):
                one.fate = "late"
                refused.append(("feedback", one.partition, one.offset, "late"))
            elif (one.id, one.rank) in seen:
                one.fate = "duplicate"
            else:
                seen.add((one.id, one.rank))
        self.said += new

    def take(self, one, watermark):
        for said in self.answers(one):
            if said.ts < watermark and said not in one.taken:
                yield said

    @staticmethod
    def settle(said, fate):
        if said.fate == "pending":
            said.fate = fate

    def explicit(self, one, watermark):
        for said in self.take(one, watermark):
            if one.fate == "pending":
                one.fate, one.label, fate = "emitted", said.label, "joined"
                yield row(one, said.ts, said.label, "observed", said.ts - one.ts)
            elif said.rank > max(t.rank for t in one.taken) and said.label != one.label:
                one.label, fate = said.label, "joined"
                yield row(one, said.ts, said.label, "correction", said.ts - one.ts)
            else:
                fate = "superseded"
            self.settle(said, fate)
            one.taken.append(said)
        if one.fate == "pending" and one.ts + self.policy.life_us < watermark:
            one.fate = "expired"

    def implicit(self, one, watermark):
        first = None
        for said in self.take(one, watermark):
            self.settle(said, "superseded" if one.taken else "joined")
            first = first if one.taken else said
            one.taken.append(said)
        if one.fate == "pending" and one.ts + self.policy.wait_us < watermark:
            one.fate = "emitted"
            delays = [s.ts - one.ts for s in self.answers(one) if s.ts - one.ts <= self.policy.wait_us]
            one.label = 1.0 if delays else 0.0
            yield row(one, one.ts + self.policy.wait_us, one.label, "observed", min(delays, default=None))
        if one.fate == "emitted" and one.label == 0.0 and first:
            one.label = 1.0
            yield row(one, first.ts, 1.0, "correction", first.ts - one.ts)

    def counts(self):
        fates = [("impression", s) for s in self.shown] + [("feedback", s) for s in self.said]
        return Counter((kind, s.partition, s.fate) for kind, s in fates)


def batch(policy, shown, said):
    """Rows and counts of everything at once, from the rules alone: no ticks, no watermark, no lateness."""
    counts, rows = Counter(), []
    winners = {}
    for one in sorted(shown, key=lambda s: (s.id, s.rank)):
        mine = winners.setdefault(one.id, [])
        if mine and one.ts - mine[-1][-1].ts <= policy.attribution_us:
            mine[-1].append(one)
            counts["impression", "duplicate"] += 1
        else:
            mine.append([one])
    answers, seen = {}, set()
    for one in sorted(said, key=lambda s: s.rank):
        if (one.id, one.rank) in seen:
            counts["feedback", "duplicate"] += 1
            continue
        seen.add((one.id, one.rank))
        groups = winners.get(one.id, [])
        if owner := next((g[0] for g in groups if 0 <= one.ts - g[0].ts <= policy.attribution_us), None):
            answers.setdefault(owner, []).append(one)
        elif any(0 < s.ts - one.ts <= policy.attribution_us for g in groups for s in g):
            counts["feedback", "invalid"] += 1
        else:
            counts["feedback", "expired"] += 1
    for owner in (g[0] for groups in winners.values() for g in groups):
        mine = answers.get(owner, [])
        out = explicit_rows(owner, mine) if policy.explicit else implicit_rows(owner, mine, policy.wait_us)
        rows += out
        counts["impression", "emitted" if out else "expired"] += 1
        joined = len(out) if policy.explicit else min(1, len(mine))
        counts["feedback", "joined"] += joined
        counts["feedback", "superseded"] += len(mine) - joined
    return rows, +counts


def explicit_rows(owner, answers):
    label, rows = None, []
    for one in answers:
        if one.label != label:
            rows.append(row(owner, one.ts, one.label, "correction" if rows else "observed", one.ts - owner.ts))
        label = one.label
    return rows


def implicit_rows(owner, answers, wait):
    delay = answers[0].ts - owner.ts if answers else None
    if delay is not None and delay <= wait:
        return [row(owner, owner.ts + wait, 1.0, "observed", delay)]
    rows = [row(owner, owner.ts + wait, 0.0, "observed", None)]
    return [*rows, row(owner, owner.ts + delay, 1.0, "correction", delay)] if answers else rows


@dataclass
class Case:
    policy: LabelPolicy
    ticks: list  # (impressions, feedback, watermark)
    within_bound: bool
    parts: int


def impression(r, ids, at, partition):
    features = (r.randrange(4), tuple(r.randrange(3) for _ in range(r.randrange(3))), r.choice([None, 0.5, 2.0]))
    return Shown(r.choice(ids), at, partition, 0, features)


def events(r, policy, ids, span):
    """Impressions and feedback in the order of time, with copies, rivals, orphans and revisions."""
    shown = [impression(r, ids, r.randrange(span), r.randrange(2)) for _ in range(r.randrange(60))]
    said = []
    for one in shown[:]:
        if r.random() < 0.2:  # delivered again, some with another time
            again = r.choice([0, 0, 1, -1, policy.attribution_us, policy.attribution_us + 1, -r.randrange(20)])
            shown.append(Shown(one.id, one.ts + again, r.randrange(2), 0, one.features))
        for _ in range(r.choice([0, 0, 1, 1, 2, 4])):
            a, w = policy.attribution_us, policy.wait_us
            edges = [0, w, w + 1, a, a + 1, -1]
            delay = r.choice([*edges, r.randrange(w + 1), r.randrange(a + 1), r.randrange(-a, 2 * a + 1)])
            label = float(r.randrange(3)) if policy.explicit else None
            said.append(Said(one.id, one.ts + delay, r.randrange(2), 0, label))
            if r.random() < 0.15:
                said.append(Said(one.id, one.ts + delay, r.randrange(2), 0, label))
    label = 1.0 if policy.explicit else None
    said += [Said(r.choice([*ids, "nobody"]), r.randrange(span), 0, 0, label) for _ in range(4)]
    return shown, said


def case_of(seed):
    r = random.Random(seed)
    attribution = r.choice([8, 40, 200])
    policy = LabelPolicy(
        r.choice(["implicit", "explicit"]),
        attribution,
        r.choice([0, 1, attribution // 4, attribution]),
        r.choice([0, 0, 13]),
    )
    span = r.choice([1, 3, 10]) * attribution
    ids = [f"id-{n}" for n in range(r.choice([2, 10, 60]))]
    shown, said = events(r, policy, ids, span)
    within, disorder = r.random() < 0.6, r.choice([0, 0, 5, attribution, 3 * attribution])
    lines = {}
    for one in shown + said:
        lines.setdefault((type(one), one.partition), []).append(one)
    for line in lines.values():
        r.shuffle(line)
        line.sort(key=lambda one: one.ts + (r.uniform(0, disorder) if disorder else 0))
        for offset, one in enumerate(line):
            one.offset = offset
    return Case(policy, list(cut(r, list(lines.values()), disorder, within)), within, r.choice([1, 1, 2]))


def cut(r, lines, disorder, within):
    """Ticks of random size; the watermark as the pipeline folds it, or, beyond the bound, further ahead."""
    at, watermark = [0] * len(lines), START
    ahead = 0 if within else r.choice([3, 40, 400])
    size = r.choice([4, 12, 40])
    while any(a < len(line) for a, line in zip(at, lines, strict=True)):
        new = []
        for n, line in enumerate(lines):
            step = r.randrange(size + 1)
            new += line[at[n] : at[n] + step]
            at[n] = min(len(line), at[n] + step)
        if all(at):
            seen = min(max(one.ts for one in line[:a]) for a, line in zip(at, lines, strict=True))
            watermark = max(watermark, seen - disorder + r.randint(0, ahead))
        yield [o for o in new if isinstance(o, Shown)], [o for o in new if isinstance(o, Said)], watermark
    yield [], [], END


def tables(shown, said):
    imp = [
        {"_id": o.id, "_ts": o.ts, "_partition": o.partition, "_offset": o.offset}
        | {"user": o.features[0], "tags": o.features[1], "price": o.features[2]}
        for o in shown
    ]
    fb = [{"_id": o.id, "_ts": o.ts, "_partition": o.partition, "_offset": o.offset, "_label": o.label} for o in said]
    return pa.Table.from_pylist(imp, IMPRESSIONS), pa.Table.from_pylist(fb, FEEDBACK)


class Joiner:
    """Carries the runs of one part from tick to tick, as the pipeline does."""

    def __init__(self, policy):
        self.policy, self.metas, self.files, self.before, self.written = policy, [], {}, START, 0

    def tick(self, shown, said, watermark):
        args = {"before_us": self.before, "watermark_us": watermark, "policy": self.policy}
        result = join.join_part(self.metas, lambda meta: self.files[meta.path], *tables(shown, said), **args)
        self.metas = list(result.runs)
        for new in result.new_runs:
            self.written += 1
            meta = new.named(0, str(self.written), b"")
            self.files[meta.path] = Run(meta.kind, new.table)
            self.metas.append(meta)
        self.before = watermark
        return result


def rows_of(table):
    made = table.drop_columns("sample_rate").to_pylist()
    return [tuple(tuple(v) if isinstance(v, list) else v for v in d.values()) for d in made]


def refused_of(table):
    return [tuple(d.values()) for d in table.select(["_kind", "_partition", "_offset", "_reason"]).to_pylist()]


def bag(rows):
    return sorted(rows, key=repr)


def part_of(event, parts):
    return sum(event.id.encode()) % parts


def check(case):
    """Raises AssertionError where joiner and references differ."""
    joiners = [Joiner(case.policy) for _ in range(case.parts)]
    reference, counts, rows, read = Reference(case.policy), Counter(), [], Counter()
    for shown, said, watermark in case.ticks:
        read.update(("impression", o.partition) for o in shown)
        read.update(("feedback", o.partition) for o in said)
        made, refused, corrections = [], [], 0
        for part, joiner in enumerate(joiners):
            mine = [[o for o in events if part_of(o, case.parts) == part] for events in (shown, said)]
            result = joiner.tick(*mine, watermark)
            made += rows_of(result.rows)
            refused += refused_of(result.refused)
            corrections += result.corrections
            for key, delta in result.counts.items():
                counts[key] += delta
        want, want_refused = reference.tick(shown, said, watermark)
        assert bag(made) == bag(want)
        assert bag(refused) == bag(want_refused)
        assert corrections == sum(r[4] == "correction" for r in made)
        assert min(counts.values(), default=0) >= 0
        assert +counts == reference.counts() + late_counts(reference, refused, counts)
        for (kind, partition), total in read.items():
            assert sum(n for key, n in counts.items() if key[:2] == (kind, partition)) == total
        rows += made
    assert not any(joiner.metas for joiner in joiners)
    assert not any(n for (_, _, name), n in counts.items() if name == "pending")
    if case.within_bound:
        want, classes = batch(case.policy, *([o for t in case.ticks for o in t[which]] for which in (0, 1)))
        total = Counter()
        for (kind, _, name), n in counts.items():
            total[kind, name] += n
        assert bag(rows) == bag(want)
        assert +total == classes
    return len(rows), sum(counts.values())


def late_counts(reference, refused, counts):
    """The reference forgets late impressions; they are checked by `refused` and the sums."""
    return Counter({key: n for key, n in counts.items() if key[0] == "impression" and key[2] == "late"})


@pytest.mark.parametrize("block", range(10))
def test_equals_brute_force(block, monkeypatch):
    rows = 0
    for seed in range(block * 100, block * 100 + 100):
        r = random.Random(seed)
        monkeypatch.setattr(compaction, "FAN", r.choice([2, 3, 12]))
        monkeypatch.setattr(compaction, "BUCKETS", r.choice([1, 4, 16]))
        try:
            rows += check(case_of(seed))[0]
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
    assert rows > 1000


def differs(case):
    try:
        check(case)
    except AssertionError:
        return True
    return False


def no_dedup(patch):
    patch.setattr(admit, "starts", lambda *columns: admit.np.ones(len(columns[0]), bool))
    patch.setattr(admit, "among", lambda rows, _: admit.np.zeros(len(rows[0]), bool))
    patch.setattr(admit._Line, "near", lambda self, *_: admit.np.zeros(len(self.ts), bool))


def no_void_rows(patch):
    patch.setattr(pending, "standing", lambda runs, refs: admit.gather(runs, refs, "_void") == 0)


def late_by_the_new_watermark(patch):
    first = admit.admit_impressions
    ahead = {}

    def admit_impressions(table, shown, said, before, policy):
        return first(table, shown, said, ahead["watermark"], policy)

    whole = join.join_part

    def join_part(*args, **kwargs):
        ahead["watermark"] = min(kwargs["watermark_us"], join.FOREVER)
        return whole(*args, **kwargs)

    patch.setattr(join, "admit_impressions", admit_impressions)
    patch.setattr(join, "join_part", join_part)


def early_feedback_ignored(patch):
    whole = join._answers

    def answers(tick, shown, said, touched):
        found = whole(tick, shown, said, touched)
        return found.pick(shown.is_old(touched)[found.owner] | ~said.is_old(found.ref))

    patch.setattr(join, "_answers", answers)


def labels_in_order_of_arrival(patch):
    patch.setattr(label.Answers, "sort", lambda self: self.pick(admit.np.lexsort((self.ref, self.owner))))


@pytest.mark.parametrize(
    "fault",
    [no_dedup, no_void_rows, late_by_the_new_watermark, early_feedback_ignored, labels_in_order_of_arrival],
)
def test_without_its_mechanism_it_differs(fault, monkeypatch):
    cases = [case_of(seed) for seed in range(40)]
    fault(monkeypatch)
    assert any(differs(case) for case in cases)


@pytest.mark.parametrize("fault", [no_dedup, late_by_the_new_watermark, early_feedback_ignored])
def test_the_rows_differ_within_the_bound(fault, monkeypatch):
    """Not only the counters: rows that users would train on."""
    cases = [case for seed in range(60) if (case := case_of(seed)).within_bound]
    fault(monkeypatch)
    assert any(rows_differ(case) for case in cases)


def rows_differ(case):
    joiner = Joiner(case.policy)
    rows = [row for tick in case.ticks for row in rows_of(joiner.tick(*tick).rows)]
    want, _ = batch(case.policy, *([o for t in case.ticks for o in t[which]] for which in (0, 1)))
    return bag(rows) != bag(want)


def shown_at(event, *times):
    return [Shown(event, ts, 0, n, (n, (), None)) for n, ts in enumerate(times)]


def said_at(event, *pairs):
    return [Said(event, ts, 0, n, label) for n, (ts, label) in enumerate(pairs)]


def kinds(result):
    made = result.rows.select(["row_kind", "label", "emit_time_us", "delay_us"]).to_pylist()
    return [tuple(row.values()) for row in made]


def test_a_click_in_and_after_the_wait():
    joiner = Joiner(LabelPolicy("implicit", 100, 10))
    result = joiner.tick(shown_at("a", 0) + shown_at("b", 0), said_at("a", (10, None)) + said_at("b", (11, None)), 11)
    assert kinds(result) == [("observed", 1.0, 10, 10), ("observed", 0.0, 10, None)]
    assert kinds(joiner.tick([], [], 12)) == [("correction", 1.0, 11, 11)]
    assert kinds(joiner.tick([], said_at("b", (12, None)), END)) == []


def test_both_rows_in_the_same_tick():
    joiner = Joiner(LabelPolicy("implicit", 100, 10))
    result = joiner.tick(shown_at("b", 0), said_at("b", (11, None), (90, None)), END)
    assert kinds(result) == [("observed", 0.0, 10, None), ("correction", 1.0, 11, 11)]
    assert result.counts["feedback", 0, "superseded"] == 1


def test_a_click_within_the_wait_that_came_too_late_corrects():
    joiner = Joiner(LabelPolicy("implicit", 100, 10))
    assert kinds(joiner.tick(shown_at("a", 0), [], 50)) == [("observed", 0.0, 10, None)]
    assert kinds(joiner.tick([], said_at("a", (5, None)), 51)) == [("correction", 1.0, 5, 5)]


def test_a_revised_label():
    joiner = Joiner(LabelPolicy("explicit", 100))
    outcome = said_at("a", (5, 1.0), (6, 1.0), (7, 0.0), (101, 1.0))
    assert kinds(joiner.tick(shown_at("a", 0), outcome, 7)) == [("observed", 1.0, 5, 5)]
    assert kinds(joiner.tick([], [], 8)) == [("correction", 0.0, 7, 7)]
    assert kinds(joiner.tick([], [], END)) == []


def test_feedback_before_its_impression_is_refused_with_its_offset():
    joiner = Joiner(LabelPolicy("explicit", 100))
    result = joiner.tick(shown_at("a", 10), said_at("a", (9, 1.0)), END)
    assert refused_of(result.refused) == [("feedback", 0, 0, "before_impression")]
    assert result.counts["feedback", 0, "invalid"] == 1
    assert result.counts["impression", 0, "expired"] == 1


def test_lateness_keeps_an_impression_open():
    for lateness, emitted in ((0, []), (50, [("observed", 1.0, 90, 90)])):
        joiner = Joiner(LabelPolicy("explicit", 100, lateness_us=lateness))
        joiner.tick(shown_at("a", 0), [], 120)
        assert kinds(joiner.tick([], said_at("a", (90, 1.0)), 121)) == emitted


def test_an_empty_tick():
    result = Joiner(LabelPolicy("implicit", 100, 10)).tick([], [], 5)
    assert result.rows.num_rows == result.refused.num_rows == 0
    assert result.rows.column_names[-3:] == ["user", "tags", "price"]
    assert not result.counts


@pytest.mark.parametrize("mode", ["implicit", "explicit"])
@pytest.mark.timeout(30)
def test_one_id_for_everything_costs_no_more(mode):
    """A constant where the id should be: all but one are duplicates, and nothing grows with the square."""
    joiner, rows = Joiner(LabelPolicy(mode, 1 << 40, 10)), Counter()
    for tick in range(5):
        times = range(tick * 4000, tick * 4000 + 4000)
        result = joiner.tick(shown_at("", *times), said_at("", *((ts, float(ts % 2)) for ts in times)), tick * 4000)
        rows.update({name: n for (kind, _, name), n in result.counts.items() if kind == "impression"})
    assert rows["duplicate"] == 19_999


def test_settings_that_do_not_fit():
    with pytest.raises(SettingsError, match="label times do not fit"):
        LabelPolicy("implicit", 10, 11)
    with pytest.raises(SettingsError, match=r"label\.mode is 'both'"):
        LabelPolicy("both", 10)
