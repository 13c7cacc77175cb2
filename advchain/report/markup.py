"""One table, four forms: CSV with raw columns; Markdown, LaTeX (booktabs) and an HTML fragment with readable cells."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from advchain.errors import DataError
from advchain.io import write_text


@dataclass(frozen=True)
class Table:
    """Readable `rows` under `header`; `raw` rows (dicts over `columns`) for the CSV; `notes` below; `empty` is said when there is no row."""

    name: str
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    columns: Sequence[str]
    raw: Sequence[Mapping[str, Any]]
    notes: Sequence[str] = ()
    empty: str = "No data."
    numeric: int = 2  # columns from this one on are right-aligned,
    num_tail: int = 0  # but not the last ones
    grouped: bool = True  # HTML: the first column becomes a line above the rows that share it
    links: Mapping[str, str] = field(default_factory=dict)  # HTML: text of a cell -> where it leads,
    addresses: Mapping[tuple[int, int], str] = field(default_factory=dict)  # or (row, column) -> where it leads

    def right(self, index: int) -> bool:
        """Whether a column holds numbers."""
        return self.numeric <= index < len(self.header) - self.num_tail


def write_table(folder: Path, table: Table) -> list[Path]:
    """Write `<name>.csv`, `.md`, `.tex` and `.html`, each atomically; return the paths."""
    paths = [folder / f"{table.name}.{ending}" for ending in ("csv", "md", "tex", "html")]
    for path, text in zip(paths, (csv_text(table.raw, table.columns), markdown(table), latex(table), fragment(table)), strict=True):
        write_text(path, text)
    return paths


def csv_text(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Return CSV with a header, LF line ends, empty cells for None."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write `csv_text` atomically."""
    write_text(Path(path), csv_text(rows, columns))


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read a CSV written by `csv_text`; every cell is text, missing numbers are "".

    Raises:
        DataError: the file is not there or not text.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}. Make it with the score rule first.") from error


def markdown(table: Table) -> str:
    """Return the table as aligned Markdown under a heading, notes below."""
    return f"### {table.title}\n\n" + (markdown_grid(table) if table.rows else table.empty + "\n") + "".join(f"\n- {note}" for note in table.notes) + "\n"


def markdown_grid(table: Table) -> str:
    """Return only the grid, padded so that it reads well in a terminal too."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (table.header, *table.rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(table.header))]
    lines = ["| " + " | ".join(_pad(cell, widths[i], table.right(i)) for i, cell in enumerate(row)) + " |" for row in cells]
    rule = "|" + "|".join("-" * (width + 1) + (":" if table.right(i) else "-") for i, width in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"


def _pad(cell: str, width: int, right: bool) -> str:
    return cell.rjust(width) if right else cell.ljust(width)


LATEX = str.maketrans(
    {char: f"\\{char}" for char in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}"}
    | {"\u2020": r"\textdagger{}", "\u2021": r"\textdaggerdbl{}", "\u2212": "$-$"}
)


def latex(table: Table) -> str:
    """Return the table for a paper: a booktabs tabular with caption, label and notes; needs the packages booktabs and, for wide ones, graphicx."""
    if not table.rows:
        return f"% {table.title}: {table.empty}\n"
    align = "".join("r" if table.right(i) else "l" for i in range(len(table.header)))
    lines = [" & ".join(cell.translate(LATEX) for cell in row) + r" \\" for row in (table.header, *table.rows)]
    notes = " ".join(note.translate(LATEX) for note in table.notes)
    return "\n".join(
        [
            r"% \usepackage{booktabs,graphicx}",
            r"\begin{table}",
            rf"\caption{{{table.title.translate(LATEX)}.}}",
            rf"\label{{tab:{table.name}}}",
            r"\centering",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{{align}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}}",
            *([rf"\par\smallskip{{\footnotesize {notes}\par}}"] if notes else []),
            r"\end{table}",
            "",
        ]
    )


def fragment(table: Table) -> str:
    """Return the table as an HTML <figure>; every text is escaped."""
    body = grid(table) if table.rows else f"<p class='empty'>{html.escape(table.empty)}</p>"
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in table.notes)
    return (
        f'<figure class="table" id="table-{table.name}">\n<figcaption>{html.escape(table.title)}</figcaption>\n{body}\n'
        + (f'<ul class="notes">{notes}</ul>\n' if notes else "")
        + "</figure>\n"
    )


TALL = 24  # rows; a longer table scrolls within itself, under its header


def grid(table: Table) -> str:
    """Return the scrollable <table> of a table."""
    shown = [(i, name) for i, name in enumerate(table.header) if i or not table.grouped]
    head = "".join(f'<th scope="col"{_kind(i, table)}>{html.escape(name)}</th>' for i, name in shown)
    rows = "\n".join(_body(table))
    few = ' class="few"' if sum(table.right(i) for i in range(len(table.header))) <= 4 else ""  # room for intervals beside the numbers
    tall = " tall" if len(table.rows) > TALL else ""
    opening = f'<div class="scroll{tall}" tabindex="0" role="region" aria-label="{html.escape(table.title)}"><table{few}>'
    return f"{opening}\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"


def _body(table: Table) -> Iterator[str]:
    group = None
    for number, row in enumerate(table.rows):
        if table.grouped and row[0] != group:
            group = row[0]
            yield f'<tr class="group"><th scope="colgroup" colspan="{len(row) - 1}">{html.escape(group)}</th></tr>'
        yield "<tr>" + "".join(_cell(cell, number, i, table) for i, cell in enumerate(row) if i or not table.grouped) + "</tr>"


def _cell(text: str, number: int, index: int, table: Table) -> str:
    shown = html.escape(text)
    address = table.links.get(text) or table.addresses.get((number, index))
    value, bracket, rest = shown.partition(" [")
    if not (bracket and table.right(index)):
        return f"<td{_kind(index, table)}>{_linked(shown, address)}</td>"
    return f"<td{_kind(index, table)}><b>{_linked(value, address)}</b> <span>[{rest}</span></td>"  # interval and n are smaller, below the number


def _linked(shown: str, address: str | None) -> str:
    return f'<a href="{html.escape(address)}">{shown}</a>' if address else shown


def _kind(index: int, table: Table) -> str:
    return ' class="n"' if table.right(index) else ""
