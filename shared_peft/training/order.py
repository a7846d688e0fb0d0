"""The order of rows in training: a keyed shuffle of any count that gives one batch without making the others.

A generalised Feistel network (Black and Rogaway 2002, "Ciphers with Arbitrary Finite Domains", CT-RSA, sections 4 and
5): a row is split into (left, right) with left * right just enough for ``count``; each round adds a keyed hash of one
half to the other, modulo its size, which can be undone, so it is a permutation; what falls outside the count is sent
round again (cycle walking). The hash is SplitMix64's (Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195).
"""

import math

import numpy as np
import torch

ROUNDS = 16  # ours, even: with 12 the 720 orders of 6 rows are not yet equally likely (chi-square of 40,000 draws)
_GOLDEN = 0x9E3779B97F4A7C15


def epoch_order(count: int, batch_size: int, index: int, seed: int) -> torch.Tensor:
    """Return the row numbers of batch ``index`` when ``count`` rows are reshuffled every epoch.

    A pure function: the same (count, batch_size, index, seed) gives the same rows in any process at any time, at a
    cost that grows with the batch, not with ``count``. The last batch of an epoch that is smaller than ``batch_size``
    is dropped unless the whole epoch is one batch.

    Returns:
        Row numbers, int64, shape (min(batch_size, count),).
    """
    per_epoch = max(1, count // batch_size)
    epoch, position = divmod(index, per_epoch)
    places = np.arange(position * batch_size, min((position + 1) * batch_size, count), dtype=np.uint64)
    return torch.from_numpy(permuted(places, count, key=seed * 1_000_003 + epoch).astype(np.int64))


def permuted(places: np.ndarray, count: int, *, key: int) -> np.ndarray:
    """Return where a keyed permutation of [0, count) sends ``places``.

    Args:
        places: (k,) uint64, each below ``count``.
        count: size of what is permuted, at most 2^62.
        key: chooses the permutation.

    Returns:
        (k,) uint64; over all places every number below ``count`` comes exactly once.

    Example:
        >>> sorted(permuted(np.arange(5, dtype=np.uint64), 5, key=1).tolist())
        [0, 1, 2, 3, 4]
    """
    keys = _hashed(np.uint64(key % 2**64) + np.arange(1, ROUNDS + 1, dtype=np.uint64) * np.uint64(_GOLDEN))
    sizes = _halves(count)
    found = _network(places, sizes, keys)
    outside = np.flatnonzero(found >= count)
    while len(outside):
        found[outside] = _network(found[outside], sizes, keys)
        outside = outside[found[outside] >= count]
    return found


def _halves(count: int) -> tuple[np.uint64, np.uint64]:
    """Return (left, right), about the root of ``count`` each, with count <= left * right < count + left.

    The left one is even: rotations of an odd number of values are even permutations, and so would be all products.
    """
    left = (math.isqrt(max(count, 1) - 1) + 2) // 2 * 2
    return np.uint64(left), np.uint64(-(-max(count, 1) // left))


def _network(places: np.ndarray, sizes: tuple[np.uint64, np.uint64], keys: np.ndarray) -> np.ndarray:
    """Permute [0, left * right) by one Feistel network; each round changes one half by a hash of the other."""
    right, left = np.divmod(places, sizes[0])
    for first, second in keys.reshape(-1, 2):
        left = (left + _hashed(right ^ first) % sizes[0]) % sizes[0]
        right = (right + _hashed(left ^ second) % sizes[1]) % sizes[1]
    return right * sizes[0] + left


def _hashed(values: np.ndarray) -> np.ndarray:
    """Return SplitMix64's finaliser of uint64 ``values``."""
    mixed = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
