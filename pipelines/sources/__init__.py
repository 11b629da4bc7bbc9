"""Where events come from. `base` is the vocabulary; each other module is one kind of source."""
