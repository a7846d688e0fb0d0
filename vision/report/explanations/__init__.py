"""Explanations, one file each; each registers itself."""

from shared_peft.registry import import_siblings
from vision.report.explanation import EXPLANATIONS, Explanation, check_explanation, choose_explanation

import_siblings(__name__, __path__)

__all__ = ["EXPLANATIONS", "Explanation", "check_explanation", "choose_explanation"]
