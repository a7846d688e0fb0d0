"""Colours, labels and frames of the pictures in reports, and pictures as PNG bytes."""

import io
import warnings
from collections.abc import Sequence
from typing import Any

import torch

DOTS_PER_INCH = 144
INK, QUIET, GRID = "#1f2933", "#5b6b7b", "#d8dee6"
AFTER, WRONG = "#1d6fb8", "#b3261e"
LONGEST = 22  # characters of a name beside a picture


def png_of(figure: Any) -> bytes:
    """Return the figure as a PNG file; letters the font lacks become boxes without a word."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    return buffer.getvalue()


def label_text(name: str, longest: int = LONGEST) -> str:
    """Return a name fit to stand in a picture: shortened, on one line, no character read as mathematics.

    Example:
        >>> label_text("steel_arch_bridge", 9)
        'steel ar…'
    """
    shown = "".join(c if c.isprintable() else " " for c in name.replace("_", " "))
    shortened = shown if len(shown) <= longest else shown[: longest - 1] + "…"
    return shortened.replace("$", r"\$")


def colours_of(count: int) -> list[Any]:
    """Return ``count`` colours that can be told apart up to 20."""
    from matplotlib import colormaps  # noqa: PLC0415

    palette = colormaps["tab10" if count <= 10 else "tab20"]
    return [palette(place % palette.N) for place in range(count)]


def show_image(axes: Any, image: torch.Tensor) -> None:
    """Draw one uint8 image, shape (1 or 3, height, width), without ticks or frame."""
    pixels = image.permute(1, 2, 0).numpy()
    grey = {"cmap": "gray", "vmin": 0, "vmax": 255} if pixels.shape[2] == 1 else {}
    axes.imshow(pixels.squeeze(), interpolation="nearest", **grey)
    bare(axes)


def bare(axes: Any) -> None:
    """Take ticks and frame away, and leave the labels."""
    axes.set_xticks([])
    axes.set_yticks([])
    hide_spines(axes, ("top", "right", "bottom", "left"))


def hide_spines(axes: Any, sides: Sequence[str] = ("top", "right")) -> None:
    """Hide lines of the frame, and quieten the others."""
    for side, spine in axes.spines.items():
        spine.set_visible(side not in sides)
        spine.set_color(GRID)
    axes.tick_params(colors=QUIET, labelsize=8, length=0)
