"""`headrace report`: one page about a loop, of what its root holds; nothing is started or asked.

Reading order: `records` (what the logs say), then pure functions of that: `ages` (freshness), `losses` (live beside
frozen), `gates` (holds, rollbacks, counts). `reliability` scores the newest rows again, with versions that had not
learned them. `summary` puts the figures together, for JSON and in words; `figures` draws, `page` writes the HTML.
"""
