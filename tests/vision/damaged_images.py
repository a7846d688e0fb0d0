"""Image files of every format Pillow writes here, and what bad disks, cut downloads and bad intentions make of them."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

SIDE = 24


def sound_files(seed: int = 0) -> dict[str, bytes]:
    """Return one sound file of each format, by its name."""
    generator = np.random.default_rng(seed)
    smooth = np.add.outer(np.arange(SIDE), np.arange(SIDE)) * 4
    colour = (smooth[:, :, None] + generator.integers(0, 40, (SIDE, SIDE, 3))).astype(np.uint8)
    image = Image.fromarray(colour)
    grey, alpha = image.convert("L"), Image.fromarray(np.dstack([colour, smooth.astype(np.uint8)]))
    exif = Image.Exif()
    exif[0x0112] = 6
    palette = image.convert("P")
    return {
        "grey.png": _bytes(grey, "PNG"),
        "rgb.png": _bytes(image, "PNG", exif=exif),
        "rgba.png": _bytes(alpha, "PNG"),
        "la.png": _bytes(alpha.convert("LA"), "PNG"),
        "palette.png": _bytes(palette, "PNG", transparency=3),
        "wide.png": _bytes(Image.fromarray((smooth * 257).astype(np.uint16)), "PNG"),
        "plain.jpg": _bytes(image, "JPEG", exif=exif),
        "progressive.jpg": _bytes(image, "JPEG", progressive=True),
        "cmyk.jpg": _bytes(image.convert("CMYK"), "JPEG"),
        "animated.gif": _bytes(palette, "GIF", save_all=True, append_images=[palette.rotate(90)], transparency=2),
        "plain.bmp": _bytes(image, "BMP"),
        "lossy.webp": _bytes(image, "WEBP"),
        "lossless.webp": _bytes(alpha, "WEBP", lossless=True),
        "raw.tif": _bytes(image, "TIFF"),
        "lzw.tif": _bytes(grey, "TIFF", compression="tiff_lzw"),
        "deflate.tif": _bytes(image.convert("CMYK"), "TIFF", compression="tiff_deflate"),
        "plain.ppm": _bytes(image, "PPM"),
        "plain.pgm": _bytes(grey, "PPM"),
        "pixel.png": _bytes(Image.new("RGB", (1, 1)), "PNG"),
    }


def damaged_files(count: int, seed: int = 0) -> Iterator[tuple[str, str, bytes]]:
    """Yield (format, damage, content), every format with every damage in turn."""
    sound, generator = list(sound_files(seed).items()), np.random.default_rng(seed)
    damages = list(DAMAGES.items())
    for index in range(count):
        name, content = sound[index % len(sound)]
        damage, change = damages[index // len(sound) % len(damages)]
        yield name, damage, change(content, generator, [other for _, other in sound])


def _bytes(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)  # type: ignore[arg-type]
    return stream.getvalue()


def _few_bits(content: bytes, generator: np.random.Generator, _: list[bytes]) -> bytes:
    changed = bytearray(content)
    for place in generator.integers(0, len(content), 4):
        changed[place] ^= 1 << int(generator.integers(8))
    return bytes(changed)


def _header_bits(content: bytes, generator: np.random.Generator, _: list[bytes]) -> bytes:
    return _few_bits(content[:64], generator, _) + content[64:]


def _many_bytes(content: bytes, generator: np.random.Generator, _: list[bytes]) -> bytes:
    changed = np.frombuffer(content, np.uint8).copy()
    places = generator.integers(0, len(changed), len(changed) // 10 + 1)
    changed[places] = generator.integers(0, 256, len(places))
    return changed.tobytes()


def _cut(content: bytes, generator: np.random.Generator, _: list[bytes]) -> bytes:
    return content[: int(generator.integers(1, len(content)))]


def _hole(content: bytes, generator: np.random.Generator, _: list[bytes]) -> bytes:
    start, stop = sorted(generator.integers(0, len(content), 2))
    return content[:start] + content[stop:]


def _header_of_another(content: bytes, generator: np.random.Generator, others: list[bytes]) -> bytes:
    length = int(generator.integers(4, 33))
    return others[int(generator.integers(len(others)))][:length] + content[length:]


def _claims_to_be_huge(content: bytes, generator: np.random.Generator, _: list[bytes]) -> bytes:
    """Write an enormous width and height wherever the true one stands, in either byte order; a PNG's sum is mended."""
    size = int(generator.choice([5_000, 20_000, 65_000]))
    forms: list[Callable[[int], bytes]] = [lambda v: struct.pack("<H", v), lambda v: struct.pack(">H", v)]
    if content.startswith(b"\x89PNG"):
        header = content[12:16] + struct.pack(">II", size, size) + content[24:29]
        return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]
    for form in forms:
        content = content[:200].replace(form(SIDE), form(size)) + content[200:]
    return content.replace(f"{SIDE} {SIDE}".encode(), f"{size} {size}".encode())


def _empty(content: bytes, generator: np.random.Generator, _: list[bytes]) -> bytes:
    return b""


DAMAGES: dict[str, Callable[[bytes, np.random.Generator, list[bytes]], bytes]] = {
    "few bits": _few_bits,
    "header bits": _header_bits,
    "many bytes": _many_bytes,
    "cut": _cut,
    "hole": _hole,
    "header of another": _header_of_another,
    "claims to be huge": _claims_to_be_huge,
    "empty": _empty,
}
