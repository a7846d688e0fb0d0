"""The demo's page: one HTML file with its tables and pictures inside, readable without a network."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from deploy.demo.figures import Picture
from deploy.demo.tables import Table

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.55 system-ui, sans-serif; color: #1f2933; background: #faf9f7; margin: 0; }
main { max-width: 60rem; margin: 0 auto; padding: 2rem 1rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.35rem; margin: 3rem 0 .25rem; padding-top: 1rem; border-top: 1px solid #d9d4cc; }
h3 { font-size: 1rem; margin: 1.75rem 0 .5rem; }
p { margin: .5rem 0; max-width: 44rem; }
nav a { margin-right: 1rem; }
a { color: #9a3412; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; background: #fff; }
th, td { padding: .35rem .8rem; text-align: right; border-bottom: 1px solid #ece7df; white-space: nowrap; }
thead th { border-bottom: 2px solid #9aa5b1; font-weight: 600; }
th:first-child { text-align: left; }
tbody th { font-weight: 400; }
tr.best th, tr.best td { font-weight: 700; background: #fff7ed; }
.note, figcaption { color: #52606d; font-size: .88rem; }
figure { margin: 0; overflow-x: auto; }
img { background: #fff; max-width: 100%; height: auto; border: 1px solid #ece7df; }
"""


@dataclass(frozen=True)
class Chapter:
    """A part of the page: heading, a paragraph, tables and pictures in order."""

    title: str
    text: str
    items: Sequence[Table | Picture]


def page(title: str, lead: str, chapters: Sequence[Chapter], facts: Sequence[str]) -> str:
    """Return the whole page.

    Args:
        title: its heading.
        lead: one paragraph below it.
        chapters: in reading order.
        facts: how to make the page again: command, versions, machine, times.
    """
    links = "".join(f"<a href='#c{i}'>{escape(chapter.title)}</a>" for i, chapter in enumerate(chapters))
    body = "".join(
        f"<h2 id='c{i}'>{escape(chapter.title)}</h2><p>{escape(chapter.text)}</p>"
        + "".join(item.as_html() for item in chapter.items)
        for i, chapter in enumerate(chapters)
    )
    ending = "".join(f"<li>{escape(fact)}</li>" for fact in facts)
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>{escape(title)}</h1><p>{escape(lead)}</p><nav aria-label='Chapters'>{links}</nav>{body}"
        f"<h2>How this was made</h2><ul>{ending}</ul></main></body></html>\n"
    )
