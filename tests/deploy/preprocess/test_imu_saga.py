"""Samples in the sensor's units give the answers that SI units give."""

import numpy as np
import pytest
import torch

from deploy.preprocess import in_graph
from shared_peft.errors import ExportError
from shared_peft.training import TrainedModel
from tests.deploy.toys import CLASSES, SequenceNet

CHANNELS = ["acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z"]


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    torch.manual_seed(0)
    return TrainedModel(
        kind="imu_saga",
        model=SequenceNet().eval(),
        build_base=SequenceNet,
        input_name="window",
        input_shape=(24, 6),
        classes=CLASSES,
        preprocessing={
            "channels": CHANNELS,
            "units": ["m/s^2"] * 3 + ["rad/s"] * 3,
            "gravity": "kept",
            "rate_hz": 20.0,
        },
        examples=torch.randn(5, 24, 6, generator=torch.Generator().manual_seed(1)),
    )


@pytest.mark.parametrize(
    ("units", "factors"),
    [
        (["acc=g", "gyro=deg/s"], [9.80665] * 3 + [np.pi / 180] * 3),
        (["acc=mg"], [9.80665e-3] * 3 + [1.0] * 3),
        (["gyro=deg/s"], [1.0] * 3 + [np.pi / 180] * 3),
    ],
)
def test_windows_in_the_sensors_units_answer_like_windows_in_si(trained, units, factors):
    raw = in_graph(trained, units)
    si = torch.randn(7, 24, 6, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected, got = trained.model(si), raw.model(si / torch.tensor(factors, dtype=torch.float32))
    np.testing.assert_allclose(got.numpy(), expected.numpy(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(raw.examples * torch.tensor(factors), trained.examples, rtol=1e-5)


def test_description_names_the_units_to_feed_and_what_is_left_outside(trained):
    steps = in_graph(trained, ["acc=g", "gyro=deg/s"]).preprocessing
    assert steps["units"] == ["g"] * 3 + ["deg/s"] * 3
    assert steps["outside_the_graph"] == "resampling to the rate; gravity kept"
    assert steps["inside_the_graph"]["si_units"] == ["m/s^2"] * 3 + ["rad/s"] * 3
    assert steps["inside_the_graph"]["scale_to_si"] == pytest.approx([9.80665] * 3 + [np.pi / 180] * 3)
    assert steps["rate_hz"] == 20.0


@pytest.mark.parametrize("text", ["acc", "acc=ft/s^2", "mag=uT", "acc=deg/s", "=g"])
def test_unit_that_is_not_known_is_refused_with_those_that_are(trained, text):
    with pytest.raises(ExportError, match=r"--units: must be among acc=m/s\^2, acc=g, .*gyro=deg/s, got"):
        in_graph(trained, [text])


def test_no_unit_is_refused(trained):
    with pytest.raises(ExportError, match="or the graph would do nothing new"):
        in_graph(trained)
