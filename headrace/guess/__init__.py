"""A first headrace.toml, from looking at events: `guess(sample, source)`, pure; `TEMPLATE` where there are none.

1. columns    what each holds: times, lists, numbers, text; how many values, how many missing      `columns`
2. roles      a column of types with an impression-like and a click-like value: two kinds of events, implicit
              labels; otherwise a 0/1 column: one event with its label, explicit. Then id and times, by name
              first. The label's time is never before the impression's                             `roles`
3. delays     how long labels took in the sample -> wait_s, attribution_s                          `roles`
4. features   the rest, except what is the same in every event, differs in every event, or tells the label almost
              alone (an outcome: known too late to be used)                                        `choice`
5. text       at most 40 lines, each choice with a comment, for a person to correct                `text`
"""

from headrace.guess.text import TEMPLATE, Guess, guess

__all__ = ["TEMPLATE", "Guess", "guess"]
