"""The first events of a file, to look at: what `headrace init --from` and `config check` show and guess from.

Nothing here decides what is read in a loop; that is the business of sources.
"""

from __future__ import annotations

import io
from itertools import islice
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.json as pajson
import pyarrow.parquet as pq

from headrace.errors import SettingsError, SourceVanished

ROWS: Final = 50_000


def read_sample(place: str | Path, rows: int = ROWS) -> pa.Table:
    """At most about `rows` events of a Parquet, CSV or JSON lines file, or of the first such file of a folder."""
    path = Path(place)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in _READERS)
        if not files:
            raise SourceVanished(
                f"{path} has no event files", hint=f"headrace looks for {', '.join(sorted(_READERS))}", path=path
            )
        path = files[0]
    if not path.exists():
        raise SourceVanished(f"there is no file {path}", hint="name a Parquet, CSV or JSON lines file", path=path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise SettingsError(
            f"the format of {path} cannot be told from its name",
            hint=f"files that can be looked at end in {', '.join(sorted(_READERS))}",
            path=path,
        )
    try:
        return reader(path, rows)
    except (pa.ArrowInvalid, OSError) as error:
        raise SettingsError(f"{path} cannot be read: {error}", path=path) from error


def _parquet(path: Path, rows: int) -> pa.Table:
    file = pq.ParquetFile(path)
    batches = list(islice(file.iter_batches(batch_size=rows), 1))
    return pa.Table.from_batches(batches, schema=file.schema_arrow)


def _head(path: Path, lines: int) -> io.BytesIO:
    """The first complete lines; of a file that grows the last one may not be."""
    with path.open("rb") as file:
        return io.BytesIO(b"".join(line for line in islice(file, lines) if line.endswith(b"\n")))


def _csv(path: Path, rows: int) -> pa.Table:
    convert = pacsv.ConvertOptions(strings_can_be_null=True)
    return pacsv.read_csv(_head(path, rows + 1), convert_options=convert)


def _json(path: Path, rows: int) -> pa.Table:
    return pajson.read_json(_head(path, rows))


_READERS: Final = {
    ".parquet": _parquet,
    ".pq": _parquet,
    ".csv": _csv,
    ".jsonl": _json,
    ".ndjson": _json,
    ".json": _json,
}
