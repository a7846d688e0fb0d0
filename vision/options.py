"""Options that several subcommands share; their help says what the registries hold."""

from typing import Annotated, TypeAlias

import tyro

import vision.augmentations  # noqa: F401  (registers its members)
from vision.augmentation import AUGMENTATIONS, JOINT
from vision.datasets import DATASETS


def data_help(use: str = "") -> str:
    """Return what `--data` takes, in words.

    Args:
        use: what is done with it, put behind.
    """
    names = ", ".join(f"{name}:{source.argument}" if source.argument else name for name, source in DATASETS.items())
    return f"A folder of class folders (train/ and test/, or one to split), or another path or data set: {names}.{use}"


def augment_help() -> str:
    """Return what `--augment` takes, in words."""
    return f"Augmentation of the training images: {', '.join(AUGMENTATIONS.names())}; several joined by {JOINT}."


Data: TypeAlias = Annotated[str, tyro.conf.arg(help=data_help())]
Augment: TypeAlias = Annotated[str, tyro.conf.arg(help=augment_help())]
