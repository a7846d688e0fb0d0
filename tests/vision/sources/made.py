"""Images drawn at random, and what was read of them."""

import gzip
import io
import struct

import numpy as np
from PIL import Image


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def shown(images, row: int) -> np.ndarray:
    return images.read(row).permute(1, 2, 0).squeeze().numpy()


def by_name(images) -> dict[str, str]:
    return {
        name.split("/")[-1]: images.classes[label]
        for name, label in zip(images.names, images.labels.tolist(), strict=True)
    }


def idx(values: np.ndarray) -> bytes:
    return bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def write_mnist(folder, *, zipped: bool, sides=("train", "t10k")) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    folder.mkdir(parents=True)
    written = {}
    for seed, side in enumerate(sides):
        images, labels = noise(12, 7, 5, seed=seed), np.arange(12, dtype=np.uint8) % 3
        written[side] = images, labels
        for name, values in ((f"{side}-images-idx3-ubyte", images), (f"{side}-labels-idx1-ubyte", labels)):
            content = gzip.compress(idx(values)) if zipped else idx(values)
            (folder / (name + ".gz" * zipped)).write_bytes(content)
    return written
