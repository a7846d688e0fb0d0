"""Scores as text for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

WIDEST = 16  # classes whose confusion matrix still fits a terminal


def scores_text(classes: Sequence[str], scores: Mapping[str, Any]) -> str:
    """Return accuracy, macro-F1, and for every class its F1 and, of few classes, its row of the confusion matrix."""
    lines = [f"accuracy {scores['accuracy']:.3f}, macro-F1 {scores['macro_f1']:.3f}, {scores['count']} windows"]
    width = max(len(name) for name in classes)
    for name, f1, counts in zip(classes, scores["per_class_f1"], scores["confusion"], strict=True):
        row = " ".join(f"{count:5d}" for count in counts) if len(classes) <= WIDEST else ""
        lines.append(f"{name:<{width}}  F1 {f1:.3f}  {row}".rstrip())
    return "\n".join(lines) + "\n"
