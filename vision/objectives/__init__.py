"""What a backbone can be pretrained for; one file an objective, each registers itself."""

from shared_peft.registry import import_siblings
from vision.objectives.objective import OBJECTIVES, Objective, Pretraining

import_siblings(__name__, __path__)

__all__ = ["OBJECTIVES", "Objective", "Pretraining"]
