"""Small modules of the page in node: axes, signs and units of motion events, tensors, recordings."""

import base64

import numpy as np
import pytest
from safetensors.numpy import save

EVENT = {
    "accelerationIncludingGravity": {"x": 1.0, "y": -2.0, "z": 9.5},
    "rotationRate": {"alpha": 180.0, "beta": -90.0, "gamma": 45.0},
}
ROW = "const { rowOf } = await load('page/motion.mjs'); return rowOf(data.event, data.channels, { ios: data.ios });"
CHANNELS = ["acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z"]


def test_an_event_becomes_si_units_on_the_axes_of_the_device(node):
    found = node(ROW, {"event": EVENT, "channels": CHANNELS, "ios": False})
    assert found == pytest.approx([1.0, -2.0, 9.5, np.pi, -np.pi / 2, np.pi / 4])
    assert node(ROW, {"event": EVENT, "channels": ["gyro_z", "acc_x"], "ios": False}) == pytest.approx([np.pi / 4, 1.0])


def test_ios_has_the_opposite_sign_of_acceleration_only(node):
    found = node(ROW, {"event": EVENT, "channels": CHANNELS, "ios": True})
    assert found == pytest.approx([-1.0, 2.0, -9.5, np.pi, -np.pi / 2, np.pi / 4])


def test_what_a_device_does_not_measure_is_missing(node):
    event = {"accelerationIncludingGravity": {"x": 1.0, "y": None, "z": 3.0}, "rotationRate": None}
    assert node(ROW, {"event": event, "channels": CHANNELS, "ios": False}) == [1.0, None, 3.0, None, None, None]


@pytest.mark.parametrize(
    ("agent", "platform", "touch", "ios"),
    [
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X)", "iPhone", 5, True),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)", "MacIntel", 5, True),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)", "MacIntel", 0, False),
        ("Mozilla/5.0 (Linux; Android 16; Pixel 10)", "Linux armv81", 5, False),
    ],
)
def test_iphones_and_ipads_are_told_from_the_rest(node, agent, platform, touch, ios):
    device = {"userAgent": agent, "platform": platform, "maxTouchPoints": touch}
    assert node("return (await load('page/motion.mjs')).onIos(data);", device) is ios


def test_tensors_are_read_as_python_wrote_them(node):
    rng = np.random.default_rng(0)
    tensors = {"one": rng.normal(size=(2, 3)).astype(np.float32), "two": rng.normal(size=5).astype(np.float32)}
    body = """
    const { readTensors } = await load("page/safetensors.mjs");
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0)).buffer;
    const found = Object.entries(readTensors(bytes));
    return Object.fromEntries(found.map(([name, { shape, values }]) => [name, { shape, values: [...values] }]));
    """
    found = node(body, base64.b64encode(save(tensors, {"note": "x"})).decode())
    assert {
        name: np.array(each["values"], np.float32).reshape(each["shape"]).tolist() for name, each in found.items()
    } == {name: values.tolist() for name, values in tensors.items()}


def test_a_recording_is_a_csv_with_empty_cells_where_nothing_was_measured(node):
    body = """
    const { Recording } = await load("page/recording.mjs");
    const recording = new Recording(["acc_x", "gyro_x"]);
    recording.add(1.25, [0.5, NaN]);
    recording.add(1.26, [-3, 2]);
    return recording.text;
    """
    assert node(body) == "time,acc_x,gyro_x\n1.250000,0.5,\n1.260000,-3,2\n"
