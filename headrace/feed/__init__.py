"""A synthetic feed whose click probability is known: for the demo, for benchmarks, for tests of quality.

    world    users, items, topics: what is clicked, and with which probability
    lines    what such a world writes into logs: late, twice, broken at stated rates
    grow     a process that lets the logs grow in real time

The probability of every impression stays with the generator, so the best possible log-loss is known.
"""

from headrace.feed.lines import Faults, Writer
from headrace.feed.world import Impressions, World, WorldPolicy, generate

__all__ = ["Faults", "Impressions", "World", "WorldPolicy", "Writer", "generate"]
