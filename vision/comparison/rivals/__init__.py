"""Rivals: other libraries' adapters, trained by our loop; one file each, each registers itself."""

from shared_peft.registry import import_siblings
from vision.comparison.rivals.rival import RIVALS, Rival

import_siblings(__name__, __path__)

__all__ = ["RIVALS", "Rival"]
