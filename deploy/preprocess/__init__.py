"""Preprocessing inside the graph: one file, one kind of model; each registers itself under the kind's name.

Most answers that differ between a phone and the computer the model was trained on differ in preprocessing. Inside the
graph it is written once.
"""

from collections.abc import Sequence

from deploy.preprocessor import INSIDE, PREPROCESSORS, Preprocessor
from shared_peft.registry import import_siblings
from shared_peft.training import TrainedModel

import_siblings(__name__, __path__)

__all__ = ["INSIDE", "PREPROCESSORS", "Preprocessor", "in_graph"]


def in_graph(trained: TrainedModel, units: Sequence[str] = ()) -> TrainedModel:
    """Return a trained model whose input is the raw data: pixels of any size, or samples in the sensor's own units.

    Its output stays logits: softmax is monotonic, costs a phone nothing, and thresholds on logits survive.

    Args:
        trained: what a run gave; left as it is.
        units: of motion sensors, as SENSOR=UNIT ("acc=g", "gyro=deg/s"); those not named are fed in SI units.

    Returns:
        The wrapped model with raw examples; its preprocessing says what is inside, and what remains to be done.

    Raises:
        ExportError: preprocessing that has no place in the graph.
        UnknownNameError: a kind of model without preprocessing of its own.
    """
    return PREPROCESSORS.get(trained.kind)(trained, units)
