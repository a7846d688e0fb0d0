"""Augmentations, one file each; importing the package registers them all."""

from shared_peft.registry import import_siblings

import_siblings(__name__, __path__)
