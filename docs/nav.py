"""A hook of mkdocs: a folder in the nav of mkdocs.yml becomes its pages, the index first; no list is kept by hand."""

from pathlib import Path
from typing import Any


def on_config(config: Any) -> Any:
    """Return the configuration with every folder of the nav replaced by its pages."""
    docs = Path(config["docs_dir"])
    config["nav"] = [
        {title: _pages(docs, value) if isinstance(value, str) and value.endswith("/") else value}
        for entry in config["nav"]
        for title, value in entry.items()
    ]
    return config


def _pages(docs: Path, folder: str) -> list[str]:
    """Return the pages of a folder relative to ``docs``."""
    pages = sorted((docs / folder).glob("*.md"), key=lambda path: (path.name != "index.md", path.name))
    return [str(path.relative_to(docs)) for path in pages]
