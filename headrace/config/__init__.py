"""Settings: one `headrace.toml`, checked before anything runs.

    load(path)                  the file, then the environment over it: HEADRACE__SECTION__KEY (…__LABEL__WAIT_S=5)
    settings.impression         the stream of what was shown; settings.feedback: the one that labels it
    settings.schema()           the features as `headrace.schema.Schema`

Nothing is ignored: an unknown key, a value of the wrong type, a key that does not belong to the kind or mode chosen,
and a setting that headrace does not implement yet are each an error that names file, section and key and says what to
do.
Paths in the file are relative to the file's folder, those in the environment to the working directory; after loading
all are absolute.

The modules in reading order: `sections` (every key, its type and default), `features` (the `[features]` section),
`later` (what is refused for now), `settings` (the whole and its cross-checks), `explain` (errors in words), `loading`.
"""

from headrace.config.loading import load, parse
from headrace.config.sections import LabelSettings, StreamSettings
from headrace.config.settings import Settings

__all__ = ["LabelSettings", "Settings", "StreamSettings", "load", "parse"]
