"""The report's page: one HTML file, pictures inside as data, no script, no request; dark and light; read aloud well."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape as escape_html

from vision.report.figure import DOTS_PER_INCH

# Nothing may be fetched or run, whatever the names in the data are.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #ffffff; --ink: #1b2530; --quiet: #566472;
  --line: #dde3ea; --accent: #1d6fb8; --bar: #d5e6f6; --wrong: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --page: #12171d; --card: #1b222b; --ink: #e8edf2; --quiet: #a3b1bf;
  --line: #2f3a46; --accent: #7cbcf5; --bar: #24425e; --wrong: #ff9a92; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 66rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 0 0 .35rem; }
p { margin: .35rem 0 .9rem; max-width: 46rem; }
nav { margin: 1rem 0 1.5rem; display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; }
a { color: var(--accent); }
.quiet, figcaption, dt { color: var(--quiet); font-size: .9rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(12rem, 1fr)); gap: .9rem; margin: 0 0 1.2rem; }
.tiles > div, section { background: var(--card); border: 1px solid var(--line); border-radius: .7rem; }
.tiles > div { padding: .9rem 1.1rem; }
.tiles dd { margin: 0; } .tiles .value { font-size: 1.8rem; font-weight: 650; line-height: 1.25; }
section { padding: 1.3rem 1.4rem; margin: 0 0 1.2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .93rem; margin: .3rem 0 1rem; }
caption { text-align: left; color: var(--quiet); font-size: .9rem; padding-bottom: .35rem; }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid var(--line); }
thead th { border-bottom: 2px solid var(--quiet); }
th:first-child { text-align: left; } tbody th { font-weight: 500; overflow-wrap: anywhere; }
td.words { text-align: left; white-space: nowrap; }
summary { cursor: pointer; color: var(--accent); }
td.bar { background: linear-gradient(to right, var(--bar) var(--share), transparent var(--share)); min-width: 7rem; }
figure { margin: .4rem 0 1.1rem; }
img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: .4rem; padding: .4rem; }
figcaption { margin-top: .35rem; max-width: 46rem; }
ul { padding-left: 1.2rem; } li { overflow-wrap: anywhere; }
@media print { section, .tiles > div { break-inside: avoid; border-color: #bbb; } nav { display: none; } }
"""


@dataclass(frozen=True)
class Tile:
    """A number to be seen first.

    Args:
        label: what it is.
        value: the number itself, in full.
        shown: the number as read.
        note: a line below it.
    """

    label: str
    value: float
    shown: str
    note: str


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Args:
        title: its heading.
        text: a paragraph below it.
        body: HTML that follows, of the functions here.
    """

    title: str
    text: str
    body: str = ""


@dataclass(frozen=True)
class Picture:
    """A picture with words for those who don't see it.

    Args:
        name: of its file, without suffix.
        png: the file.
        alt: what it shows.
        caption: how to read it.
    """

    name: str
    png: bytes
    alt: str
    caption: str = ""

    def as_html(self) -> str:
        """Return it as a figure with the file inside."""
        data = base64.b64encode(self.png).decode("ascii")
        width, height = (int.from_bytes(self.png[at : at + 4], "big") * 96 // DOTS_PER_INCH for at in (16, 20))
        caption = f"<figcaption>{escape(self.caption)}</figcaption>" if self.caption else ""
        size = f'width="{width}" height="{height}"'
        return f'<figure><img alt="{escape(self.alt)}" {size} src="data:image/png;base64,{data}">{caption}</figure>'


def escape(text: object) -> str:
    """Return text as it stands in HTML; what cannot be written as UTF-8 becomes a question mark."""
    return escape_html(str(text).encode("utf-8", "replace").decode("utf-8"))


def number(value: float, shown: str) -> str:
    """Return a number that carries its full value beside what is shown."""
    return f'<data value="{value!r}">{escape(shown)}</data>'


def percent(share: float) -> str:
    """Return a share as text.

    Example:
        >>> percent(0.5638)
        '56.4 %'
    """
    return f"{100 * share:.1f} %"


def bar_cell(share: float) -> str:
    """Return a table cell with a share and a bar of that length."""
    return f'<td class="bar" style="--share: {100 * share:.1f}%">{number(share, percent(share))}</td>'


def plain_cell(value: object) -> str:
    """Return a table cell with a number or with words."""
    return f"<td>{value}</td>" if isinstance(value, int) else f'<td class="words">{escape(value)}</td>'


def table(caption: str, headings: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Return a table.

    Args:
        caption: what it holds.
        headings: of the columns.
        rows: name of the row, and its cells as HTML.
    """
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    body = "".join(f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>' for name, cells in rows)
    return (
        f'<div class="scroll"><table><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def folded(summary: str, body: str) -> str:
    """Return HTML that is opened by a click on its summary."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def bullets(items: Sequence[str]) -> str:
    """Return lines of text as a list."""
    return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"


def page(title: str, lead: str, tiles: Sequence[Tile], sections: Sequence[Section]) -> str:
    """Return the whole page.

    Args:
        title: its heading.
        lead: one paragraph below it.
        tiles: the numbers to be seen first.
        sections: in reading order.
    """
    links = "".join(f'<a href="#part{i}">{escape(section.title)}</a>' for i, section in enumerate(sections))
    shown = "".join(
        f'<div><dt>{escape(tile.label)}</dt><dd class="value">{number(tile.value, tile.shown)}</dd>'
        f'<dd class="quiet">{escape(tile.note)}</dd></div>'
        for tile in tiles
    )
    parts = "".join(
        f'<section id="part{i}" aria-labelledby="title{i}"><h2 id="title{i}">{escape(section.title)}</h2>'
        f"<p>{escape(section.text)}</p>{section.body}</section>"
        for i, section in enumerate(sections)
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>"
        f'<header><h1>{escape(title)}</h1><p>{escape(lead)}</p><nav aria-label="Parts">{links}</nav></header>'
        f'<dl class="tiles">{shown}</dl>{parts}</main></body></html>\n'
    )
