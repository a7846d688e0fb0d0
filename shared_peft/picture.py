"""Pictures: a matplotlib figure made only where something is drawn, and written whole or not at all."""

from pathlib import Path
from typing import Any

from shared_peft.atomic import replacing
from shared_peft.packages import load_package

DOTS_PER_INCH = 120


def new_figure(where: str, width_in: float = 8.0, height_in: float = 5.0) -> Any:
    """Return an empty matplotlib figure with constrained layout on white.

    Args:
        where: what draws, for the error message.
        width_in: width [inches].
        height_in: height [inches].

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    figures = load_package("matplotlib.figure", where, extra="plot")
    return figures.Figure(figsize=(width_in, height_in), layout="constrained", facecolor="white")


def write_picture(path: Path, figure: Any) -> None:
    """Write a figure as PNG, SVG or PDF, by the path's suffix."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix.lstrip(".") or "png", dpi=DOTS_PER_INCH)
