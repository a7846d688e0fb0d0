"""Label correlations: how the answers for several labels help each other; one file each, registers itself."""

from shared_peft.registry import import_siblings
from vision.correlations.head import LABEL_CORRELATIONS, CorrelatedHead, LabelCorrelation, correlate_heads, penalties

import_siblings(__name__, __path__)

__all__ = ["LABEL_CORRELATIONS", "CorrelatedHead", "LabelCorrelation", "correlate_heads", "penalties"]
