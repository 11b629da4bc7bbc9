"""`headrace inspect`: what a loop would learn from, before it loops.

`events` gathers what the pipeline makes of the sources, `labels` and `values` are pure functions of arrays, `report`
says what they found in words, JSON and a picture.
"""
