"""The page in a headless Chromium: on the same samples and pictures it answers as Python, window by window."""

import base64
import io
import json
import re

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image
from safetensors.numpy import load_file

from deploy import BundleRunner
from deploy.web.settings import SETTLE_SAMPLES
from deploy.web.site import STATIC
from imu_saga.predict import guessed_options, read_recordings
from imu_saga.recording import IMU_CHANNELS
from imu_saga.streaming.classifier import StreamClassifier, StreamOptions
from imu_saga.streaming.source import SourceOptions
from vision.datasets.decode import pixels_of
from vision.transforms import fit_image, normalise

LISTEN = "window.answers = []; document.addEventListener('answer', (event) => window.answers.push(event.detail)); 0"
INJECT = """(async () => {
  for (const [time, ...v] of ROWS) {
    const [x, y, z, alpha, beta, gamma] = v;
    const event = new DeviceMotionEvent("devicemotion", {
      accelerationIncludingGravity: { x, y, z }, rotationRate: { alpha, beta, gamma }, interval: 10,
    });
    Object.defineProperty(event, "timeStamp", { value: time });
    window.dispatchEvent(event);
  }
})()"""
SHOOT = """(async () => {
  const bytes = Uint8Array.from(atob(DATA), (c) => c.charCodeAt(0));
  const chosen = new DataTransfer();
  chosen.items.add(new File([bytes], "picture.png", { type: "image/png" }));
  const input = document.getElementById("file");
  input.files = chosen.files;
  const answered = new Promise((resolve) => document.addEventListener("answer", resolve, { once: true }));
  input.dispatchEvent(new Event("change"));
  const { input: values, ...answer } = (await answered).detail;
  return { ...answer, values: [...values] };
})()"""


def click(tab, name):
    tab.run(f"document.getElementById('{name}').click()")


def inject(tab, times_ms, values):
    """Send samples, (n, 6) in m/s^2 and rad/s, as the motion events of an Android phone."""
    rows = np.column_stack([times_ms, values[:, :3], np.degrees(values[:, 3:])])
    tab.run(INJECT.replace("ROWS", json.dumps(rows.tolist())))


def start(tab):
    tab.run(LISTEN)
    click(tab, "start")
    tab.wait("document.getElementById('start').textContent === 'Stop'")


def stop(tab):
    click(tab, "start")
    tab.wait("document.getElementById('status').textContent.startsWith('Stopped')")
    return tab.run("window.answers")


def motion_answers(tab, times_ms, values):
    """Answers of the open page to samples."""
    start(tab)
    inject(tab, times_ms, values)
    return stop(tab)


def answers_of_page(tab, address, times_ms, values):
    tab.open(address)
    return motion_answers(tab, times_ms, values)


def answers_of_python(run, times_ms, values):
    source = SourceOptions(acc_unit="m/s^2", gyro_unit="rad/s", time_unit="ms", settle_samples=SETTLE_SAMPLES)
    classifier = StreamClassifier(run, StreamOptions(source))
    return classifier.push(times_ms, values) + classifier.flush()


@pytest.fixture(scope="module")
def recorded(shared_root):
    """A real phone in a real pocket: stamps [ms] and values, with a short and a long gap cut into it."""
    streams = np.load(shared_root / "data/imu/sp_sw_har/phone_streams.npz")
    longest = int(np.argmax(streams["segment_len"]))
    start, length = int(streams["segment_start"][longest]), int(streams["segment_len"][longest])
    rows = slice(start, start + min(length, 2600))
    times = streams["timestamp_ms"][rows].astype(np.float64)
    values = np.concatenate([streams["acc"][rows], streams["gyro"][rows]], axis=1).astype(np.float64)
    kept = np.ones(len(times), bool)
    kept[700:725] = kept[1100:1400] = False
    return times[kept] - times[0] + 1000, values[kept]


def test_recorded_sensors_are_answered_as_in_python_window_by_window(tab, motion_page, motion_run, recorded):
    found = answers_of_page(tab, motion_page, *recorded)
    expected = answers_of_python(motion_run, *recorded)
    assert len({each.label for each in expected}) > 1
    assert {each.note for each in expected} >= {"", "gap"}
    assert [each["note"] for each in found] == [each.note for each in expected]
    for mine, theirs in zip(found, expected, strict=True):
        assert (mine["startS"], mine["endS"]) == pytest.approx((theirs.start_s, theirs.end_s), abs=1e-6)
        if not theirs.note:
            assert mine["label"] == theirs.label
            assert mine["probabilities"] == pytest.approx(theirs.probabilities, abs=1e-5)
    assert tab.problems == []


def test_the_csv_of_the_page_is_read_by_predict(tab, motion_page, recorded, tmp_path):
    times, values = recorded[0][:900], recorded[1][:900]
    answers_of_page(tab, motion_page, times, values)
    tab.run("URL.createObjectURL = (blob) => { window.saved = blob.text(); return '#'; }; 0")
    click(tab, "download")
    path = tmp_path / "recording.csv"
    path.write_text(tab.run("window.saved"))
    (recording,) = read_recordings(path, guessed_options(path))
    assert recording.channels == IMU_CHANNELS
    rows = np.loadtxt(path, delimiter=",", skiprows=1)
    np.testing.assert_allclose(rows, np.column_stack([times / 1000, values]), atol=1e-6)
    np.testing.assert_allclose(np.median(recording.signal, axis=0), np.median(values, axis=0), atol=0.05)


def test_nothing_is_asked_of_another_host_and_the_page_works_without_a_network(tab, motion_page):
    tab.open(motion_page)
    tab.run("navigator.serviceWorker.ready.then(() => 0)")
    assert len(tab.requests) > 10
    assert {url for url in tab.requests if not url.startswith((motion_page, "blob:"))} <= {"about:blank"}
    assert tab.run("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')") == "refused"
    assert any("Content Security Policy" in each for each in tab.problems)
    tab.wait("navigator.serviceWorker.controller !== null")
    tab.send("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0)
    try:
        tab.open(motion_page + "?again")
        assert "of PyTorch" in tab.run("document.getElementById('checked').textContent")
    finally:
        tab.send(
            "Network.emulateNetworkConditions", offline=False, latency=0, downloadThroughput=-1, uploadThroughput=-1
        )


@pytest.mark.parametrize(("answer", "shown"), [("denied", "was refused"), ("granted", "Waiting for the sensors")])
def test_ios_is_asked_for_permission_first(tab, motion_page, answer, shown):
    tab.open(motion_page)
    tab.run(f"DeviceMotionEvent.requestPermission = async () => {json.dumps(answer)}; 0")
    click(tab, "start")
    tab.wait(f"document.querySelector('main').innerText.includes({json.dumps(shown)})")
    assert tab.run("document.getElementById('start').textContent") == ("Stop" if answer == "granted" else "Start")


def test_a_changed_model_is_refused(tab, motion_page, motion_site):
    path = motion_site / "model" / "model.onnx"
    before = path.read_bytes()
    path.write_bytes(before[:-1] + b"\0" if before[-1] else before[:-1] + b"\1")
    try:
        tab.send("Network.setBypassServiceWorker", bypass=True)
        tab.send("Page.navigate", url=motion_page)
        tab.wait("document.getElementById('error')?.innerText")
        assert "must have SHA-256" in tab.run("document.getElementById('error').innerText")
    finally:
        tab.send("Network.setBypassServiceWorker", bypass=False)
        path.write_bytes(before)


def choose(tab, name):
    """Choose a task as a user does, and wait until it is active."""
    tab.run(f"const c = document.getElementById('adapter'); c.value = '{name}'; c.dispatchEvent(new Event('change'))")
    tab.wait(f"document.getElementById('status').textContent.startsWith('Task {name},')")


def test_every_task_of_one_base_answers_as_in_python_window_by_window(tab, tasks_page, motion_tasks, recorded):
    for name in [*list(motion_tasks)[1:], "activity"]:
        tab.open(tasks_page)
        assert tab.run("document.getElementById('adapters').hidden") is False
        choose(tab, name)
        found = motion_answers(tab, *recorded)
        expected = answers_of_python(motion_tasks[name].trained, *recorded)
        assert [each["note"] for each in found] == [each.note for each in expected]
        answered = [(mine, theirs) for mine, theirs in zip(found, expected, strict=True) if not theirs.note]
        assert len(answered) >= 5
        for mine, theirs in answered:
            assert (mine["task"], mine["label"]) == (name, theirs.label)
            assert mine["probabilities"] == pytest.approx(theirs.probabilities, abs=1e-5)
    assert tab.problems == []


def test_a_task_chosen_while_sensors_run_answers_the_next_windows_with_its_classes(tab, tasks_page, recorded):
    times, values = recorded
    tab.open(tasks_page)
    start(tab)
    inject(tab, times[:600], values[:600])
    tab.wait("window.answers.length > 1")
    choose(tab, "user")
    assert tab.run("document.getElementById('label').textContent") == "No answer yet"
    assert tab.run("document.querySelectorAll('#bars li').length") == 4
    inject(tab, times[600:], values[600:])
    found = stop(tab)
    tasks = [each["task"] for each in found if not each["note"]]
    assert tasks == sorted(tasks)
    assert set(tasks) == {"activity", "user"}
    assert {len(each["probabilities"]) for each in found if each.get("task") == "user"} == {4}
    assert tab.problems == []


def test_the_graph_of_the_page_wants_every_tensor_and_a_task_without_an_adapter_brings_zeros(tasks_site, tasks_bundle):
    graph = onnx.load(tasks_site / "model" / "model.onnx").graph
    wanted = {each.name for each in graph.input}
    assert not wanted & {each.name for each in graph.initializer}
    held = {name: load_file(tasks_site / "model" / f"{name}.safetensors") for name in ("user", "placement")}
    assert all(tensors.keys() == wanted - {"window"} for tensors in held.values())
    own = {"standardise.mean", "standardise.deviation", "head.weight", "head.bias"}
    assert all(not held["placement"][name].any() for name in wanted - own - {"window"})
    runner, window = BundleRunner(tasks_bundle, threads=1), np.ones((1, 40, 6), np.float32)
    session = onnxruntime.InferenceSession(tasks_site / "model" / "model.onnx")
    for name, tensors in held.items():
        expected = runner.logits_of(name, window)
        np.testing.assert_allclose(session.run(None, {"window": window, **tensors})[0], expected, rtol=0, atol=1e-5)


def png(mode, size=(57, 41)):
    rng = np.random.default_rng(size[0])
    channels = {"RGB": 3, "RGBA": 4}[mode]
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], channels), dtype=np.uint8), mode)


@pytest.mark.parametrize(("mode", "levels"), [("RGB", 1e-3), ("RGBA", 1.5)])
def test_a_picture_is_answered_as_in_python(tab, vision_page, vision_bundle, vision_data, mode, levels):
    image, stream = png(mode), io.BytesIO()
    image.save(stream, "png")
    tab.open(vision_page)
    found = tab.run(SHOOT.replace("DATA", json.dumps(base64.b64encode(stream.getvalue()).decode())))
    expected = normalise(fit_image(pixels_of(image, "picture"), vision_data)[None], vision_data).numpy()
    values = np.array(found["values"], np.float32).reshape(expected.shape)
    assert np.abs((values - expected) * 255 * 0.229).max() < levels
    answer = BundleRunner(vision_bundle, threads=1).predict(values)[0]
    assert found["label"] == answer.label
    assert found["probabilities"] == pytest.approx(answer.probabilities, abs=1e-5)


def test_the_camera_is_answered_and_handed_back(tab, vision_page):
    tab.open(vision_page)
    click(tab, "camera")
    tab.wait("!document.getElementById('shoot').disabled")
    click(tab, "shoot")
    tab.wait("/%/.test(document.getElementById('confidence').textContent)")
    click(tab, "camera")
    tab.wait("document.getElementById('video').srcObject === null")
    assert tab.problems == []


@pytest.mark.parametrize("page", ["motion_page", "vision_page", "tasks_page"])
def test_the_page_fits_360_pixels_and_every_control_has_a_name(tab, page, request):
    tab.send("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
    try:
        tab.open(request.getfixturevalue(page))
        assert tab.run("document.documentElement.scrollWidth") <= 360
        heights = tab.run("[...document.querySelectorAll('button')].map((b) => b.offsetHeight).filter(Boolean)")
        assert min(heights) >= 44
    finally:
        tab.send("Emulation.clearDeviceMetricsOverride")
    nodes = tab.send("Accessibility.getFullAXTree")["nodes"]
    controls = [node for node in nodes if node.get("role", {}).get("value") in ("button", "combobox", "meter", "image")]
    assert len(controls) >= 4
    assert all(node["name"]["value"] for node in controls)


def luminance(colour):
    """Relative luminance of #rrggbb (WCAG 2.2)."""
    levels = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("scheme", [0, 1])
def test_contrast_is_enough_in_light_and_dark(scheme):
    blocks = re.findall(r":root \{(.*?)\}", (STATIC / "style.css").read_text(), re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", blocks[scheme]))
    assert len(blocks) == 2
    pairs = [(name, "paper", 4.5) for name in ("ink", "soft", "fill", "wrong", "axis-0", "axis-1", "axis-2")]
    for one, other, least in [*pairs, ("on-fill", "fill", 4.5), ("line", "paper", 3.0)]:
        bright, dark = sorted((luminance(colours[one]), luminance(colours[other])), reverse=True)
        assert (bright + 0.05) / (dark + 0.05) >= least, (one, other)
