"""What puts preprocessing into the graph, and the registry that names one for each kind of model."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from shared_peft.errors import ExportError
from shared_peft.registry import Registry
from shared_peft.training import TrainedModel

Preprocessor: TypeAlias = Callable[[TrainedModel, Sequence[str]], TrainedModel]
"""From a trained model and the units of the raw data (SENSOR=UNIT) to one whose input is the raw data."""

PREPROCESSORS: Registry[Preprocessor] = Registry("preprocessing in the graph")
OUTPUT = "logits; softmax is outside"
INSIDE = "inside_the_graph"


def refuse_units(kind: str, units: Sequence[str]) -> None:
    """Raise ExportError where units were given for data that has none to choose."""
    if units:
        must = f"must be left out for a model of {kind}"
        raise ExportError("--units", must, " ".join(units), "Give units for motion models only")
