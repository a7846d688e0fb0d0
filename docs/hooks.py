"""Hooks of mkdocs: folders of the nav become their pages, and no page may fetch anything from elsewhere."""

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

_FETCHED = re.compile(r'<(?:script|img|iframe|source|link)\b[^>]*?\b(?:src|href)="((?:https?:)?//[^"]+)"')


def on_config(config: Any) -> Any:
    """Return the configuration with every folder of the nav replaced by its pages, so that no list is kept by hand."""
    docs = Path(config["docs_dir"])
    config["nav"] = [
        {title: _pages(docs, value) if isinstance(value, str) and value.endswith("/") else value}
        for entry in config["nav"]
        for title, value in entry.items()
    ]
    return config


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Return a page as it is.

    Raises:
        PluginError: a browser that opens it would ask another server for something.
    """
    if found := _FETCHED.search(output):
        raise PluginError(f"{page.file.src_uri}: a page must fetch nothing from elsewhere, got {found[1]}")
    return output


def _pages(docs: Path, folder: str) -> list[str]:
    """Return the pages of a folder relative to ``docs``, the index first."""
    pages = sorted((docs / folder).glob("*.md"), key=lambda path: (path.name != "index.md", path.name))
    return [str(path.relative_to(docs)) for path in pages]
