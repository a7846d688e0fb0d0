"""Places a bundle can be checked at: one file, one place; each registers itself."""

from deploy.place import PLACES, Engine, Place, PlaceOptions, Reply
from shared_peft.registry import import_siblings

import_siblings(__name__, __path__)

__all__ = ["PLACES", "Engine", "Place", "PlaceOptions", "Reply"]
