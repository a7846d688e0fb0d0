"""Source code that feeds a bundle, generated from its manifest: one file, one language; each registers itself."""

from pathlib import Path

from deploy.manifest import Manifest
from deploy.snippet import SNIPPETS, Snippet
from shared_peft.atomic import write_text
from shared_peft.registry import import_siblings

import_siblings(__name__, __path__)


def write_snippets(folder: Path, manifest: Manifest) -> tuple[str, ...]:
    """Write one source file a language.

    Args:
        folder: the bundle's folder.
        manifest: what the bundle holds and how it is fed; its files need not be described yet.

    Returns:
        The files' names.
    """
    snippets = [snippet() for _, snippet in SNIPPETS.items()]
    for snippet in snippets:
        write_text(folder / snippet.file_name, snippet.text(manifest))
    return tuple(snippet.file_name for snippet in snippets)


__all__ = ["SNIPPETS", "Snippet", "write_snippets"]
