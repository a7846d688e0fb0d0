"""Scores as text for the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_SHOWN_CLASSES = 20


def results_text(folder: Path, results: Mapping[str, Any]) -> str:
    """Return one line of scores, parameters and seconds, and where the run lies."""
    parameters = results["parameters"]
    lines = [
        f"{_headline(results)}, {parameters['trainable']:,} trained of {parameters['total']:,} parameters "
        f"({parameters['head']:,} in the head), {results['train_seconds']:.1f} s",
        *(f"skipped {reason}" for reason in results["skipped_images"]),
        str(folder),
    ]
    return "\n".join(lines) + "\n"


def scores_text(classes: Sequence[str], scores: Mapping[str, Any]) -> str:
    """Return scores, per-class F1 and, for up to 20 classes of one label, the confusion matrix (rows are true)."""
    lines = [f"{_headline(scores)}, {scores['count']} images"]
    width = max(len(name) for name in classes)
    matrix = scores.get("confusion") if len(classes) <= _SHOWN_CLASSES else None
    matrix = matrix or [[] for _ in classes]
    for name, f1, counts in zip(classes, scores["per_class_f1"], matrix, strict=True):
        lines.append(f"{name:<{width}}  F1 {100 * f1:5.1f} %  " + " ".join(f"{count:4d}" for count in counts))
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _headline(scores: Mapping[str, Any]) -> str:
    named = (("mAP", "mean_average_precision"), ("accuracy", "accuracy"), ("macro-F1", "macro_f1"))
    named += (("micro-F1", "micro_f1"), ("error of hidden pixels against a blank guess", "relative_error"))
    return ", ".join(f"{name} {100 * scores[key]:.1f} %" for name, key in named if key in scores)
