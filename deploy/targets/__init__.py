"""Export targets: one file, one format; each registers itself."""

from deploy.target import EXPORT_TARGETS, ExportTarget, Written
from shared_peft.registry import import_siblings

import_siblings(__name__, __path__)

__all__ = ["EXPORT_TARGETS", "ExportTarget", "Written"]
