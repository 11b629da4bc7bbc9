"""The command line. The only place that sees all three stages, and each only inside the command that needs it.

`headrace --help`, `status` and `doctor` import neither TensorFlow nor Beam nor MLflow: command modules import typer and
the standard library at the top and everything else inside their functions. Results go to stdout (text, or JSON with
`--json`), talk goes to stderr.
"""

from __future__ import annotations

import os
import sys

__all__ = ["main"]

INTERRUPTED = 130


def main() -> None:
    """Entry point of the `headrace` script."""
    os.environ["TYPER_USE_RICH"] = "0"  # rich help costs 0.3 s on every start
    from headrace.cli.hugepages import begin_again
    from headrace.cli.supervise import end_with_parent

    begin_again(sys.argv[1:])
    end_with_parent()
    try:
        from headrace.cli.app import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # while the commands were imported, or were leaving
        sys.stderr.write("interrupted\n")
        code = INTERRUPTED
    raise SystemExit(code)
