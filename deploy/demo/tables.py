"""One table, shown the same in a terminal and on a page."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Table:
    """A titled table of text.

    Args:
        title: what it shows.
        columns: column heads.
        rows: one text for each column.
        note: how to read it, one or two sentences.
        best: rows (by number) to set in bold.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    best: Sequence[int] = ()

    def as_text(self) -> str:
        """Return the table in aligned columns: the first to the left, the others to the right."""
        cells = [list(self.columns), *[list(row) for row in self.rows]]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.columns))]

        def line(row: Sequence[str]) -> str:
            first, *others = zip(row, widths, strict=True)
            return "  ".join([first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]).rstrip()

        rule = "  ".join("-" * width for width in widths)
        return "\n".join([self.title, line(cells[0]), rule, *(line(row) for row in cells[1:])]) + "\n"

    def as_html(self) -> str:
        """Return the table as a figure with its title above and its note below."""
        head = "".join(f"<th scope='col'>{escape(column)}</th>" for column in self.columns)
        body = "".join(
            f"<tr{' class=best' if number in self.best else ''}><th scope='row'>{escape(row[0])}</th>"
            + "".join(f"<td>{escape(text)}</td>" for text in row[1:])
            + "</tr>"
            for number, row in enumerate(self.rows)
        )
        note = f"<p class='note'>{escape(self.note)}</p>" if self.note else ""
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f"<section><h3>{escape(self.title)}</h3><div class='scroll'>{table}</div>{note}</section>"
