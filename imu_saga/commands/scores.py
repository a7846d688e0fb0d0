"""Scores as text for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any


def scores_text(classes: Sequence[str], scores: Mapping[str, Any]) -> str:
    """Return accuracy, macro-F1, and for every class its F1 and its row of the confusion matrix (rows are true)."""
    lines = [f"accuracy {scores['accuracy']:.3f}, macro-F1 {scores['macro_f1']:.3f}, {scores['count']} windows"]
    width = max(len(name) for name in classes)
    for name, f1, counts in zip(classes, scores["per_class_f1"], scores["confusion"], strict=True):
        lines.append(f"{name:<{width}}  F1 {f1:.3f}  " + " ".join(f"{count:5d}" for count in counts))
    return "\n".join(lines) + "\n"
