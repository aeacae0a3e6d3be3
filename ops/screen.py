"""How tables become a screen: side by side in boxes on a terminal, plain lines where there is none."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

_WIDE = 100_000  # columns; of a pipe, which is as wide as its longest line
_FRAME = 4  # columns that a box takes
Row = Sequence[object]


@dataclass(frozen=True, slots=True)
class Sheet:
    """One table with its title.

    Attributes:
        title: what stands above it.
        rows: cells; a Text keeps its colour.
        head: names of the columns; none for a list of names and values.
        bad: whether it tells of something wrong.
        folds: whether its last column may go over several lines where the terminal is narrow.
    """

    title: str
    rows: Sequence[Row]
    head: Sequence[str] = ()
    bad: bool = False
    folds: bool = False


Block = Sequence[Sheet | Sequence[Sheet]]  # side by side where there is room; a sequence one below another


def standard_output() -> Console:
    """Standard output; without a terminal its lines are as long as they are."""
    console = Console()
    return console if console.is_terminal else Console(width=_WIDE)


def show(blocks: Sequence[Block], console: Console | None = None) -> None:
    """Print them, one block below another; to standard output unless told otherwise."""
    console = console or standard_output()
    if console.is_terminal:
        for block in blocks:
            columns = [Group(*(_drawn(sheet, console) for sheet in _sheets(one))) for one in block]
            console.print(Columns(columns, padding=(0, 1)) if len(columns) > 1 else columns[0], crop=False)
        return
    sheets = (sheet for block in blocks for one in block for sheet in _sheets(one))
    console.file.write("\n".join(map(_plain, sheets)))


def _sheets(one: Sheet | Sequence[Sheet]) -> Sequence[Sheet]:
    return [one] if isinstance(one, Sheet) else one


def _plain(sheet: Sheet) -> str:
    """Its title, and a line for each row, as long as it is."""
    lines = io.StringIO()
    Console(file=lines, width=_WIDE, color_system=None).print(_table(sheet))
    return "\n".join([sheet.title, *(f"  {line.rstrip()}" for line in lines.getvalue().splitlines())]) + "\n"


def _drawn(sheet: Sheet, console: Console) -> RenderableType:
    """In a box; in plain lines when it is too wide, which the terminal breaks without losing anything."""
    table, style = _table(sheet), "red" if sheet.bad else "none"
    if console.measure(table).minimum > console.width - _FRAME:
        return Text(_plain(sheet), no_wrap=True, overflow="ignore")
    return Panel(table, title=sheet.title, title_align="left", expand=False, border_style=style)


def _table(sheet: Sheet) -> RenderableType:
    if not sheet.rows:
        return Text("none")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=bool(sheet.head))
    width = max(map(len, sheet.rows))
    for at in range(width):
        name = sheet.head[at] if sheet.head else ""
        folds = sheet.folds and at == width - 1
        table.add_column(name, header_style="dim", no_wrap=not folds, overflow="fold")
    for row in sheet.rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(said(cell)) for cell in row))
    return table


def said(value: object) -> str:
    """A value as a cell says it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
    return "-" if value is None else str(value)
