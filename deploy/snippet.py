"""What a snippet is: source code that feeds a bundle's model, generated from its manifest; and the registry of them."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from math import prod
from string import Template
from typing import Any

from deploy.manifest import Manifest
from shared_peft.registry import Registry

_LINE = 110  # characters of a comment before it is cut


class Snippet(ABC):
    """A language that a bundle's snippet is written in.

    Each language is one file of `deploy.snippets` whose class registers itself; the tests iterate the registry.
    """

    file_name: str

    @abstractmethod
    def text(self, manifest: Manifest) -> str:
        """Return the whole source file for a bundle."""


SNIPPETS = Registry[type[Snippet]]("snippet language")


class Filled(Template):
    """A template whose places are written @name, which none of the languages minds."""

    delimiter = "@"


def quoted(text: str, escape: Callable[[str], str]) -> str:
    """Return a string literal in double quotes.

    Args:
        text: any characters.
        escape: the language's form of one that cannot stand for itself.

    Example:
        >>> quoted('a "b"', lambda character: f"<{ord(character)}>")
        '"a <34>b<34>"'
    """
    return '"' + "".join(c if c.isprintable() and c not in '"\\$' else escape(c) for c in text) + '"'


def comment(manifest: Manifest) -> str:
    """Return what a reader must know as `//` lines: the model, its input, and what must happen to raw data first."""
    entry = manifest.input
    lines = [
        f"From manifest.json: {manifest.model_file}, {len(manifest.classes)} classes, opset {manifest.opset}.",
        f"Input {entry.name}: {entry.dtype}, (1, {', '.join(map(str, entry.shape))}), {prod(entry.shape)} values.",
        *(f"Axis {axis + 1} of it may have another size." for axis in entry.free_axes),
        f"Output {manifest.output_name}: float32, (1, {len(manifest.classes)}), logits in the order of the classes.",
        "What must happen to raw data first, exactly so; most wrong answers on a phone come from here:",
        *(f"  {name}: {value}" for name, value in manifest.preprocessing.items()),
    ]
    return "\n".join(f"// {_one_line(line)}" for line in lines)


def feed_of(manifest: Manifest) -> str:
    """Return how raw values become the input: "image" (levels are normalised), "window" (samples in rows), or ""."""
    entry, steps = manifest.input, manifest.preprocessing
    levels = {"mean", "std", "scale"} <= steps.keys() and len(entry.shape) == 3 and entry.dtype == "float32"
    return "image" if levels else "window" if len(entry.shape) == 2 else ""


def constants(manifest: Manifest) -> dict[str, Any]:
    """Return the steps of preprocessing that are a number, a word, or a list of one of the two, by name.

    Numbers of a list are floats, so that they have one type in every language.
    """
    plain = {name: value for name, value in manifest.preprocessing.items() if name.isidentifier() and _is_plain(value)}
    return {
        name: list(map(float, value)) if isinstance(value, list) and _is_number(value[0]) else value
        for name, value in plain.items()
    }


def facts(manifest: Manifest, literal: Callable[[Any], str]) -> dict[str, Any]:
    """Return what every language writes in its own literals but otherwise alike: comment, shape, names, classes."""
    return {
        "comment": comment(manifest),
        "shape": ", ".join(map(str, (1, *manifest.input.shape))),
        "file": literal(manifest.model_file),
        "input": literal(manifest.input.name),
        "output": literal(manifest.output_name),
        "classes": literal(list(manifest.classes)),
    }


def _one_line(text: str) -> str:
    shown = "".join(c if c.isprintable() else " " for c in text)
    return shown if len(shown) <= _LINE else f"{shown[: _LINE - 4]} ..."


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and (all(map(_is_number, value)) or all(isinstance(item, str) for item in value))
    return _is_number(value) or isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
