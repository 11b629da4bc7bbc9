"""What the page is put together of: escaped text, tables, tiles, pictures."""

from __future__ import annotations

import base64
from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

LONG: Final = 40
CSS: Final = """
:root { color-scheme: light }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 1040px; padding: 24px 20px 40px; background: #fff; color: #1f2328;
       font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", "DejaVu Sans", sans-serif }
h1 { font-size: 26px; line-height: 1.2; margin: 0 0 4px }
h2 { font-size: 19px; margin: 36px 0 8px; padding-top: 16px; border-top: 1px solid #d0d7de }
p { margin: 8px 0 } .quiet { color: #57606a; font-size: 13.5px } img { display: block; width: 100%; height: auto }
.tiles { display: grid; gap: 10px; grid-template-columns: repeat(5, 1fr); margin: 20px 0 0 }
.tile { border: 1px solid #d0d7de; border-radius: 8px; padding: 10px 12px }
.tile b { display: block; font-size: 21px; line-height: 1.25; font-weight: 600 }
.tile span { color: #57606a; font-size: 13px }
.bad b { color: #cf222e }
.wide { overflow-x: auto; margin: 12px 0 }
table { border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums }
th, td { padding: 4px 14px 4px 0; text-align: left; vertical-align: top; border-bottom: 1px solid #eaeef2 }
th { color: #57606a; font-weight: 500; white-space: nowrap } .n { text-align: right; white-space: nowrap }
td.w { min-width: 220px }
.empty { background: #f6f8fa; border-radius: 8px; padding: 12px 14px }
code { font: 13px ui-monospace, "DejaVu Sans Mono", monospace; background: #f6f8fa; padding: 1px 4px;
       border-radius: 4px }
@media (max-width: 600px) { body { padding: 16px 14px 32px } .tiles { grid-template-columns: 1fr 1fr } }
"""


def tile(value: str, name: str, bad: bool) -> str:
    return f"<div class='tile{' bad' if bad else ''}'><b>{escape(value)}</b><span>{escape(name)}</span></div>"


def section(title: str, *parts: str) -> str:
    return f"<h2>{escape(title)}</h2>\n" + "\n".join(part for part in parts if part)


def picture(both: tuple[bytes, bytes], alt: str) -> str:
    """PNG for a wide page, and for a narrow one."""
    wide, narrow = (f"data:image/png;base64,{base64.b64encode(one).decode('ascii')}" for one in both)
    source = f'<source media="(max-width: 600px)" srcset="{narrow}">'
    return f'<picture>{source}<img src="{wide}" alt="{escape(alt)}"></picture>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A column of numbers stands to the right."""
    numeric = [all(map(_is_number, column)) for column in zip(*rows, strict=True)] or [False] * len(head)
    lines = "".join(f"<tr>{_cells('td', row, numeric)}</tr>" for row in rows)
    return f"<div class=wide><table><tr>{_cells('th', head, numeric)}</tr>{lines}</table></div>"


def _cells(kind: str, values: Sequence[str], numeric: Sequence[bool]) -> str:
    return "".join(
        f"<{kind}{_class(value, right)}>{escape(value)}</{kind}>" for value, right in zip(values, numeric, strict=True)
    )


def _class(cell: str, right: bool) -> str:
    """n: a number; w: text that needs room."""
    if right:
        return " class=n"
    return " class=w" if len(cell) > LONG else ""


def _is_number(cell: str) -> bool:
    return cell == "-" or cell[:1].isdigit()


def quiet(words: str) -> str:
    return f"<p class=quiet>{code(words)}</p>"


def code(words: str) -> str:
    """Escaped, with `commands` set as such."""
    parts = escape(words, quote=False).split("`")
    return "".join(f"<code>{part}</code>" if place % 2 else part for place, part in enumerate(parts))
