"""Motion: raw samples in the sensor's own units, scaled to SI in the graph; the network scales further by itself.

Resampling to the model's rate stays outside, and so does the removal of gravity: its filter remembers the samples
before a window, which a graph of one window cannot know (`imu_saga.streaming` does both).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from deploy.preprocessor import INSIDE, OUTPUT, PREPROCESSORS
from shared_peft.errors import ExportError
from shared_peft.training import LabelledRows, TrainedModel


class SensorInput(nn.Module):
    """A motion model that takes samples in the sensor's units.

    Args:
        net: takes windows in SI units, shape (batch, samples, channels).
        scale: (channels,) factor to SI units.
    """

    scale: Tensor

    def __init__(self, net: nn.Module, scale: Tensor) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, window: Tensor) -> Tensor:
        """Return logits, shape (batch, classes), of windows in the sensor's units."""
        return self.net(window * self.scale)


@PREPROCESSORS.register("imu_saga")
def with_sensor_units(trained: TrainedModel, units: Sequence[str]) -> TrainedModel:
    """Return a model of windows in the sensor's units; see `in_graph`.

    Raises:
        ExportError: no unit, an unknown one, or one of a sensor the model does not read.
    """
    channels = list(trained.preprocessing["channels"])
    named = named_units(units, channels)
    found = [named[name.rpartition("_")[0]] for name in channels]
    scale = torch.tensor([factor for _, factor in found], dtype=torch.float32)
    validation = trained.validation

    def raw_validation() -> LabelledRows:
        assert validation is not None
        rows = validation()
        return replace(rows, inputs=rows.inputs / scale)

    return replace(
        trained,
        model=SensorInput(trained.model, scale).eval(),
        build_base=lambda: SensorInput(trained.build_base(), scale),
        preprocessing=_described(trained.preprocessing, [unit for unit, _ in found], scale.tolist()),
        examples=trained.examples.cpu() / scale,
        validation=raw_validation if validation is not None else None,
    )


def named_units(texts: Sequence[str], channels: Sequence[str]) -> dict[str, tuple[str, float]]:
    """Return the unit of every sensor with its factor to SI units.

    Args:
        texts: SENSOR=UNIT; sensors that are not named are in SI units.
        channels: the model's.

    Raises:
        ExportError: no unit, an unknown one, or one of a sensor the model does not read.

    Example:
        >>> named_units(["gyro=deg/s"], ["acc_x", "gyro_x"])["gyro"]
        ('deg/s', 0.017453292519943295)
    """
    from imu_saga.signal.units import ACC_SCALE, GYRO_SCALE, MAG_SCALE  # noqa: PLC0415  (slow to import)

    scales: dict[str, dict[str, float]] = {"acc": {**ACC_SCALE}, "gyro": {**GYRO_SCALE}, "mag": {**MAG_SCALE}}
    sensors = dict.fromkeys(name.rpartition("_")[0] for name in channels)
    found = {sensor: next(iter(scales.get(sensor, {"SI": 1.0}).items())) for sensor in sensors}
    if not texts:
        must = "must name the unit of a sensor, or the graph would do nothing new"
        raise ExportError("--units", must, "none", "Add --units acc=g gyro=deg/s, or export with --preprocess none")
    for text in texts:
        sensor, _, unit = text.partition("=")
        if sensor not in sensors or unit not in scales.get(sensor, {}):
            known = ", ".join(f"{name}={each}" for name in sensors for each in scales.get(name, ()))
            raise ExportError("--units", f"must be among {known}", repr(text), "Write --units acc=g gyro=deg/s")
        found[sensor] = unit, scales[sensor][unit]
    return found


def _described(preprocessing: dict[str, Any], units: list[str], scale: list[float]) -> dict[str, Any]:
    return {
        **preprocessing,
        "units": units,
        "scale": "inside the graph: feed the sensor's units as they are",
        "outside_the_graph": f"resampling to the rate; gravity {preprocessing['gravity']}",
        "output": OUTPUT,
        INSIDE: {"scale_to_si": scale, "si_units": preprocessing["units"]},
    }
