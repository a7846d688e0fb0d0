"""Layer kinds, one file each: where a layer keeps its weights and how a low-rank chain runs beside it."""

from shared_peft.registry import import_siblings

import_siblings(__name__, __path__)
