"""The features a head sees, on a plane (t-SNE, van der Maaten and Hinton 2008; or principal components)."""

from typing import Literal

import numpy as np
import torch

from shared_peft.errors import DataError

Projection = Literal["tsne", "pca"]
LARGEST_PERPLEXITY = 30.0  # scikit-learn's default; fewer images take a third of their number


def on_a_plane(features: torch.Tensor, projection: Projection, seed: int) -> np.ndarray:
    """Return a point for each row of ``features``, shape (images, 2).

    Args:
        features: shape (images, width), at least 4 images.
        projection: "tsne" keeps neighbours together, "pca" keeps distances along the two widest directions.
        seed: of t-SNE.

    Raises:
        DataError: too few images.
    """
    if len(features) < 4:
        raise DataError("features", "there must be at least 4 images to draw", len(features), "Give more images")
    scaled = features.double().numpy()
    if projection == "pca":
        from sklearn.decomposition import PCA  # noqa: PLC0415  (slow to import)

        return PCA(2, random_state=seed).fit_transform(scaled)
    from sklearn.manifold import TSNE  # noqa: PLC0415

    perplexity = min(LARGEST_PERPLEXITY, (len(features) - 1) / 3)
    init = "pca" if scaled.std() > 0 else "random"
    return TSNE(2, perplexity=perplexity, init=init, random_state=seed).fit_transform(scaled)


def neighbour_agreement(features: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the share of images whose nearest other image (Euclidean) is of their own class, in [0, 1].

    Example:
        >>> neighbour_agreement(torch.tensor([[0.0], [0.1], [5.0], [5.2]]), torch.tensor([0, 0, 1, 2]))
        0.5
    """
    distances = torch.cdist(features.double(), features.double())
    nearest = distances.fill_diagonal_(torch.inf).argmin(dim=1)
    return float((labels[nearest] == labels).double().mean())
