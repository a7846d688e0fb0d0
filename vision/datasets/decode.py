"""Image files to tensors with Pillow, whatever their mode: EXIF-rotated, grey, transparent, CMYK, 16-bit."""

from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from shared_peft.errors import DataError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
_FIX = "Repair or remove the file, or pass --skip-broken"


def read_image(source: Path | IO[bytes], where: object = None) -> torch.Tensor:
    """Read an image file.

    The EXIF orientation is applied, transparent pixels become white, 16-bit values are scaled to 8 bits; CMYK and
    palettes become RGB; animated files give their first frame. An image that claims more pixels than Pillow's
    `Image.MAX_IMAGE_PIXELS` is refused before it is decoded.

    Args:
        source: the file, or a stream of its bytes.
        where: what an error calls it; the path if not given.

    Returns:
        Pixels, uint8, shape (1, height, width) for a grey image, else (3, height, width).

    Raises:
        DataError: the file is missing, broken, no image, too large, or of a mode without a known range.
    """
    from PIL import Image, ImageOps  # noqa: PLC0415  (slow to import)

    where = source if where is None else where
    try:
        with Image.open(source) as image:
            _refuse_bomb(image, where)
            image.load()
            return pixels_of(ImageOps.exif_transpose(image), where)
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(where, "must be an image Pillow can read", "no such file", _FIX) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large("more", where) from error
    except Exception as error:  # a damaged file makes the parsers behind Pillow raise almost anything
        got = f"{type(error).__name__}: {error}"
        raise DataError(where, "must be an image Pillow can read", got, _FIX) from error


def pixels_of(image: Any, where: object) -> torch.Tensor:
    """Return an opened image as a tensor; see `read_image`.

    Args:
        image: a `PIL.Image.Image`.
        where: what an error calls it.

    Returns:
        Pixels, uint8, shape (1 or 3, height, width).

    Raises:
        DataError: a mode without a known range.
    """
    return torch.from_numpy(_to_uint8(image, where)).permute(2, 0, 1).contiguous()


def _refuse_bomb(image: Any, where: object) -> None:
    from PIL import Image  # noqa: PLC0415

    width, height = image.size
    if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
        raise _too_large(f"{width:,} x {height:,}", where)


def _too_large(got: str, where: object) -> DataError:
    from PIL import Image  # noqa: PLC0415

    must = f"an image may have at most {Image.MAX_IMAGE_PIXELS:,} pixels"
    return DataError(where, must, got, "Shrink or remove it, or pass --skip-broken")


def _to_uint8(image: Any, where: object) -> np.ndarray:
    """Return pixels as uint8, shape (height, width, 1 or 3)."""
    if image.mode in ("I", "I;16", "I;16B", "I;16L", "I;16N"):
        wide = np.asarray(image).astype(np.int64)
        if wide.min() < 0 or wide.max() > 65_535:
            got = f"{wide.min()} to {wide.max()}"
            raise DataError(where, "integer pixels must lie in 0 to 65535", got, "Convert to 8 or 16 bits")
        return np.round(wide / 257).astype(np.uint8)[:, :, None]
    if image.mode == "F":
        raise DataError(where, "pixels must be integers", "floating point", "Convert to 8 or 16 bits")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        image = _on_white(image)
    return np.array(image.convert("L"))[:, :, None] if image.mode in ("1", "L") else np.array(image.convert("RGB"))


def _on_white(image: Any) -> Any:
    """Lay a transparent image on white; grey stays grey."""
    from PIL import Image  # noqa: PLC0415

    grey = image.mode in ("1", "L", "LA", "La")
    opaque = image.convert("RGBA")
    white = Image.new("RGBA", opaque.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, opaque).convert("L" if grey else "RGB")
