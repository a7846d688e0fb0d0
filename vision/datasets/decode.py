"""Image files to tensors with Pillow, whatever their mode: EXIF-rotated, grey, transparent, CMYK, 16-bit."""

from pathlib import Path

import numpy as np
import torch

from shared_peft.errors import DataError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
_FIX = "Repair or remove the file, or pass --skip-broken"


def read_image(path: Path) -> torch.Tensor:
    """Read an image file.

    The EXIF orientation is applied, transparent pixels become white, 16-bit values are scaled to 8 bits; CMYK and
    palettes become RGB; animated files give their first frame.

    Args:
        path: the file.

    Returns:
        Pixels, uint8, shape (1, height, width) for a grey image, else (3, height, width).

    Raises:
        DataError: the file is missing, broken, no image, or of a mode without a known range.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError  # noqa: PLC0415  (slow to import)

    unreadable = (OSError, SyntaxError, ValueError, EOFError, UnidentifiedImageError, Image.DecompressionBombError)
    try:
        with Image.open(path) as image:
            image.load()
            pixels = _to_uint8(ImageOps.exif_transpose(image), path)
    except unreadable as error:
        got = "no such file" if isinstance(error, FileNotFoundError) else f"{type(error).__name__}: {error}"
        raise DataError(path, "must be an image Pillow can read", got, _FIX) from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _to_uint8(image: "Image.Image", path: Path) -> np.ndarray:  # type: ignore[name-defined]  # noqa: F821
    """Return pixels as uint8, shape (height, width, 1 or 3)."""
    if image.mode in ("I", "I;16", "I;16B", "I;16L", "I;16N"):
        wide = np.asarray(image).astype(np.int64)
        if wide.min() < 0 or wide.max() > 65_535:
            got = f"{wide.min()} to {wide.max()}"
            raise DataError(path, "integer pixels must lie in 0 to 65535", got, "Convert to 8 or 16 bits")
        return np.round(wide / 257).astype(np.uint8)[:, :, None]
    if image.mode == "F":
        raise DataError(path, "pixels must be integers", "floating point", "Convert to 8 or 16 bits")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        image = _on_white(image)
    return np.array(image.convert("L"))[:, :, None] if image.mode in ("1", "L") else np.array(image.convert("RGB"))


def _on_white(image: "Image.Image") -> "Image.Image":  # type: ignore[name-defined]  # noqa: F821
    """Lay a transparent image on white; grey stays grey."""
    from PIL import Image  # noqa: PLC0415

    grey = image.mode in ("1", "L", "LA", "La")
    opaque = image.convert("RGBA")
    white = Image.new("RGBA", opaque.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, opaque).convert("L" if grey else "RGB")
