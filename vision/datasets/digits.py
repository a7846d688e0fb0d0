"""The 1,797 handwritten digits of 8 x 8 pixels that scikit-learn ships (Alpaydin and Kaynak 1998, UCI)."""

from typing import Any

import numpy as np
import torch

from shared_peft.errors import DataError
from vision.datasets.labelled import DATASETS, ImageData, ImageSource, LabelledImages
from vision.datasets.sampling import set_aside

TEST_FRACTION = 0.3


def load_digits(argument: str) -> ImageData:
    """Return scikit-learn's digits, 30 % of every class set aside for testing, always the same.

    Raises:
        DataError: something was asked of it; it takes nothing.
    """
    if argument:
        raise DataError("digits", "takes no path", argument, "Drop the path")
    from sklearn.datasets import load_digits as fetch  # noqa: PLC0415  (slow to import)

    digits: Any = fetch()
    pixels = torch.from_numpy(np.round(digits.images * 255 / 16).astype(np.uint8))[:, None]  # (images, 1, 8, 8)
    names = tuple(f"digits[{row}]" for row in range(len(pixels)))
    labels = torch.from_numpy(digits.target.astype(np.int64))
    images = LabelledImages(names, labels, tuple("0123456789"), lambda row: pixels[row])
    return set_aside("digits", images, TEST_FRACTION)


DATASETS.register("digits")(ImageSource("scikit-learn's 1,797 handwritten digits of 8 x 8 pixels", "", load_digits))
