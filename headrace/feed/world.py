"""The world behind the feed: users meet items that are born, age and die; topics drift, flare up, and change places.

An impression of item i (topic k, age a hours) for user u in slot s is clicked with probability

    p = s^-eta * sigmoid(base + bias_u + .8 affinity_uk + quality_i + appeal_k(t) + heat_k(t) - .15 log(1 + a) + shift)

    appeal    Ornstein-Uhlenbeck process per topic: slow drift
    heat      sum of bursts, each amp * (1 - e^(-age / 5 min)) * 2^(-age / half life): hot topics, shown more, too
    regime    from a given moment on: topics change places (whom what appeals to is permuted), and `shift` is added

Position examination s^-eta as in Craswell et al. 2008; item popularity decays as a stretched exponential. World time is
counted in hours, and moves on by steps of `step_h`. Everything is drawn from the seed: the world of step n is the same
however it was reached, and so are its impressions for the same numbers asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

HOURS: Final = np.array(
    [.88, .55, .35, .23, .19, .24, .43, .64, .81, .96, 1.10, 1.24, 1.41, 1.34, 1.22, 1.26, 1.34, 1.44, 1.35, 1.31, 1.36,
     1.45, 1.54, 1.39]
)  # fmt: skip
"""Impressions by hour of the day, relative to the mean: of the public log KuaiRand."""
WARM_UP_H: Final = 12.0
DEAD_H: Final = 48.0
RISE_H: Final = 5 / 60


@dataclass(frozen=True)
class WorldPolicy:
    """Sizes and strengths; `sd_…` are standard deviations in logits. regime_h: None = never."""

    seed: int = 0
    step_h: float = 1 / 60
    users: int = 20_000
    topics: int = 24
    authors: int = 800
    slots: int = 8
    births_per_h: float = 60.0
    item_tau_h: float = 3.0
    stretch: float = 0.4
    sd_item: float = 0.7
    sd_author: float = 0.3
    sd_user: float = 0.6
    sd_affinity: float = 0.9
    sd_topic: float = 0.5
    topic_tau_h: float = 24.0
    hot_per_day: float = 8.0
    hot_amp: float = 1.2
    hot_half_h: float = 1.5
    hot_exposure: float = 12.0
    base: float = -2.2
    eta: float = 0.6
    drift: float = 1.0  # 0: appeal, heat and regime stand still
    births: bool = True  # False: the items of the beginning stay, and do not age
    regime_h: float | None = None
    regime_shift: float = -0.5
    delay_s: float = 25.0  # median time from impression to click, in seconds of the log
    sd_delay: float = 1.10
    longest_delay_s: float = float("inf")


@dataclass(frozen=True)
class Impressions:
    """n impressions. at_h: world time; p: the true probability; clicked by `p`; delay_s: from impression to click."""

    at_h: Floats
    user: Ints
    item: Ints
    topic: Ints
    author: Ints
    slot: Ints
    p: Floats
    clicked: npt.NDArray[np.bool_]
    delay_s: Floats

    def __len__(self) -> int:
        return len(self.p)

    def best_log_loss(self) -> float:
        """Expected log-loss of someone who knows `p`, in nats.

        >>> one = np.array([.5]); none = np.array([0]); yes = np.array([True])
        >>> round(Impressions(one, none, none, none, none, none, one, yes, one).best_log_loss(), 4)
        0.6931
        """
        p = np.clip(self.p, 1e-9, 1 - 1e-9)
        return float(-(p * np.log(p) + (1 - p) * np.log1p(-p)).mean())


class World:
    """The state after `step` steps. `advance` moves on by one; `show` draws impressions of the present step."""

    def __init__(self, policy: WorldPolicy) -> None:
        self.policy = policy
        self.step = 0
        draw = self._draw = np.random.default_rng(policy.seed)
        weight = np.exp(draw.normal(0, 0.94, policy.users))
        self._user_cdf = np.cumsum(weight / weight.sum())
        self._bias = draw.normal(0, policy.sd_user, policy.users)
        self._affinity = draw.normal(0, policy.sd_affinity, (policy.users, policy.topics)).astype(np.float32)
        self._author_quality = draw.normal(0, policy.sd_author, policy.authors)
        share = 1 / np.arange(1, policy.topics + 1) ** 0.7
        self._topic_share = share / share.sum()
        self._appeal = draw.normal(0, policy.sd_topic, policy.topics)
        self._permuted = np.arange(policy.topics)
        self._after = draw.permutation(policy.topics)  # what the regime change will do
        self._hot: list[tuple[float, int, float, float]] = []  # began_h, topic, amp, half_h
        self._next_item = 0
        self._items = np.zeros((0, 5))  # born_h, topic, author, quality, popularity
        self._numbers = np.zeros(0, np.int64)
        self._bear(draw.uniform(-WARM_UP_H, 0, int(policy.births_per_h * WARM_UP_H)))

    @property
    def now_h(self) -> float:
        return self.step * self.policy.step_h

    @property
    def changed(self) -> bool:
        """Whether the regime change has come."""
        moment = self.policy.regime_h
        return moment is not None and self.now_h >= moment and self.policy.drift > 0

    def heat(self) -> Floats:
        """Of each topic, in logits: float64 [topics]."""
        heat = np.zeros(self.policy.topics)
        for began_h, topic, amp, half_h in self._hot:
            age_h = self.now_h - began_h
            heat[topic] += amp * (1 - np.exp(-age_h / RISE_H)) * 0.5 ** (age_h / half_h)
        return heat * self.policy.drift

    def advance(self) -> None:
        """One step on: births, deaths, drift, new bursts."""
        policy, draw = self.policy, self._draw
        self.step += 1
        keep = np.exp(-policy.step_h / policy.topic_tau_h)
        kick = np.sqrt(1 - keep * keep) * policy.sd_topic * draw.normal(size=policy.topics)
        if policy.drift > 0:
            self._appeal = keep * self._appeal + policy.drift * kick
        for _ in range(draw.poisson(policy.hot_per_day * policy.step_h / 24)):
            topic, amp = int(draw.integers(policy.topics)), policy.hot_amp * np.exp(draw.normal(0, 0.4))
            self._hot.append((self.now_h, topic, amp, policy.hot_half_h * np.exp(draw.normal(0, 0.5))))
        self._hot = [burst for burst in self._hot if self.now_h - burst[0] < 12 * burst[3]]
        if policy.births:
            self._bear(np.full(draw.poisson(policy.births_per_h * policy.step_h), self.now_h))
            if self.step % 64 == 0:
                alive = self.now_h - self._items[:, 0] < DEAD_H
                self._items, self._numbers = self._items[alive], self._numbers[alive]
        if self.changed:
            self._permuted = self._after

    def show(self, n: int) -> Impressions:
        """n impressions within the present step, in the order of time."""
        policy = self.policy
        draw = np.random.default_rng([policy.seed, 1, self.step])
        born, topics, authors, quality, popularity = self._items.T
        age = np.maximum(self.now_h - born, 0.0) if policy.births else np.zeros(len(born))
        topic_of = topics.astype(np.int64)
        heat = self.heat()
        weight = popularity * np.exp(-((age / policy.item_tau_h) ** policy.stretch))
        weight *= 1 + policy.hot_exposure * np.minimum(heat[topic_of], 2) / 2
        cdf = np.cumsum(weight)
        chosen = np.minimum(np.searchsorted(cdf, draw.random(n) * cdf[-1]), len(cdf) - 1)
        user = np.minimum(np.searchsorted(self._user_cdf, draw.random(n)), policy.users - 1)
        slot, topic = draw.integers(0, policy.slots, n), topic_of[chosen]
        taste = self._permuted[topic]
        logit = policy.base + self._bias[user] + 0.8 * self._affinity[user, taste] + quality[chosen]
        logit += self._appeal[taste] + heat[topic] - 0.15 * np.log1p(age[chosen])
        logit += policy.regime_shift if self.changed else 0.0
        p = (slot + 1.0) ** -policy.eta / (1 + np.exp(-logit))
        at_h = self.now_h + policy.step_h * np.sort(draw.random(n))
        delay = np.minimum(policy.delay_s * np.exp(policy.sd_delay * draw.normal(size=n)), policy.longest_delay_s)
        clicked = draw.random(n) < p
        author = authors[chosen].astype(np.int64)
        return Impressions(at_h, user, self._numbers[chosen], topic, author, slot, p, clicked, delay)

    def _bear(self, born_h: Floats) -> None:
        n, draw = len(born_h), self._draw
        if not n:
            return
        topic = draw.choice(self.policy.topics, n, p=self._topic_share)
        author = draw.integers(0, self.policy.authors, n)
        quality = draw.normal(0, self.policy.sd_item, n) + self._author_quality[author]
        new = np.stack([born_h, topic, author, quality, np.exp(draw.normal(0, 1.0, n))], axis=1)
        self._items = np.concatenate([self._items, new])
        self._numbers = np.concatenate([self._numbers, np.arange(self._next_item, self._next_item + n)])
        self._next_item += n


def generate(policy: WorldPolicy, *, days: float, per_day: int) -> Impressions:
    """All impressions of so many days, with the rhythm of a day, in the order of time.

    >>> len(generate(WorldPolicy(users=100), days=0.1, per_day=10_000)) > 300
    True
    """
    world, parts = World(policy), []
    counts = np.random.default_rng([policy.seed, 2])
    for _ in range(round(days * 24 / policy.step_h)):
        rate = per_day / 24 * policy.step_h * HOURS[int(world.now_h) % 24]
        parts.append(world.show(int(counts.poisson(rate))))
        world.advance()
    return Impressions(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(Impressions)))
