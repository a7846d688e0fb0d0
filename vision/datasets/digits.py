"""The 1,797 handwritten digits of 8 x 8 pixels that scikit-learn ships (Alpaydin and Kaynak 1998, UCI)."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from shared_peft.errors import DataError
from vision.datasets.labelled import DATASETS, ImageData, LabelledImages
from vision.datasets.sampling import stratified_split

TEST_FRACTION, SPLIT_SEED = 0.3, 0


@DATASETS.register("digits")
def load_digits(path: Path | None) -> ImageData:
    """Return scikit-learn's digits, 30 % of every class set aside for testing, always the same.

    Raises:
        DataError: a path was given; this data set has none.
    """
    if path is not None:
        raise DataError("digits", "takes no path", path, "Drop the path")
    from sklearn.datasets import load_digits as fetch  # noqa: PLC0415  (slow to import)

    digits: Any = fetch()
    pixels = torch.from_numpy(np.round(digits.images * 255 / 16).astype(np.uint8))[:, None]  # (images, 1, 8, 8)
    names = tuple(f"digits[{row}]" for row in range(len(pixels)))
    labels = torch.from_numpy(digits.target.astype(np.int64))
    images = LabelledImages(names, labels, tuple("0123456789"), lambda row: pixels[row])
    train_rows, test_rows = stratified_split(labels, TEST_FRACTION, SPLIT_SEED)
    return ImageData("digits", images.take(train_rows), images.take(test_rows))
