"""Tables as all notebooks show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import pandas as pd
from IPython.display import display
from pandas.io.formats.style import Styler


def show_table(table: pd.DataFrame, formats: Mapping[str, str] | None = None) -> None:
    """Show a `styled_table` where the cell stands, within a condition or a loop, too."""
    display(styled_table(table, formats))


def styled_table(table: pd.DataFrame, formats: Mapping[str, str] | None = None) -> Styler:
    """A table as a reader likes it: words to the left, whole; thousands separated; no row numbers; no HTML of its own.

    formats: by column, of those that are there.
    """
    words = [c for c in table if table[c].dtype.kind not in "iuf"]
    style = table.style.hide(axis="index").format(precision=2, thousands=",", escape="html")
    style = style.set_properties(subset=words, **{"text-align": "left"})
    style = style.set_table_styles({c: [{"selector": "th", "props": "text-align: left"}] for c in words}, overwrite=False)
    for column, form in (formats or {}).items():
        style = style.format(form, subset=[c for c in table if c == column])
    return style


def table_pieces(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table of words as HTML in pieces: its head, of each row the first cell and the rest, its end."""
    cells = [[f"<td>{escape(value)}</td>" for value in row] for row in rows]
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    parts = [part for row in cells for part in (f"<tr>{row[0]}", "".join(row[1:]) + "</tr>")]
    return [f'<table style="text-align:left"><thead><tr>{head}</tr></thead><tbody>', *parts, "</tbody></table>"]
