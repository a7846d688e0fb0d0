"""Node, a browser, and the sites that the tests of the page share."""

import copy
import dataclasses
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from deploy import export_model
from deploy.chromium import NAMES, find_browser
from deploy.multi import Task, export_multi
from deploy.web import SiteOptions, build_site
from deploy.web.runtime import VERSION, runtime_files
from deploy.web.site import STATIC
from imu_saga.encoder import build_encoder, card_of
from imu_saga.finetune import FinetuneConfig, attach_method
from imu_saga.heads import Classifier
from imu_saga.input_spec import InputSpec
from imu_saga.recording import IMU_CHANNELS
from imu_saga.trained import preprocessing
from shared_peft.atomic import appearing_folder
from shared_peft.errors import ExportError, MissingPackageError
from shared_peft.training import TrainedModel
from tests.deploy.architectures import fill
from tests.deploy.toys import ConvNet, trained_toy
from tests.deploy.web.browser import Page, browser_page
from tests.deploy.web.serving import served
from vision.backbones.family import DataConfig
from vision.transforms import describe_preprocessing


@pytest.fixture(scope="session")
def node() -> Callable[[str, Any], Any]:
    """Run a function body of JavaScript on JSON ``data``; what it returns comes back. ``load(path)`` is an import."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("node is not installed")

    def run(body: str, data: Any = None, *, static: Path = STATIC) -> Any:
        script = f"""
        const load = (path) => import({json.dumps(static.as_uri() + "/")} + path);
        const chunks = [];
        for await (const chunk of process.stdin) chunks.push(chunk);
        const data = JSON.parse(Buffer.concat(chunks).toString());
        const answer = await (async () => {{ {body} }})();
        process.stdout.write(JSON.stringify(answer ?? null));
        """
        command = [program, "--input-type=module", "--eval", script]
        done = subprocess.run(command, input=json.dumps(data), capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="session")
def motion_run() -> TrainedModel:
    """A small untrained motion model at 20 Hz whose answers vary from window to window."""
    spec = InputSpec(IMU_CHANNELS, 20.0, 40)
    torch.manual_seed(0)
    model = Classifier(build_encoder("saga", spec, {"width": 16, "depth": 1, "heads": 2}), 3)
    generator = torch.Generator().manual_seed(1)
    spread = torch.tensor([3.0, 3, 3, 1, 1, 1])
    examples = torch.randn(64, 40, 6, generator=generator) * spread + torch.tensor([0.0, 0, 9.8, 0, 0, 0])
    model.calibrate(examples)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    model.requires_grad_(False).eval()
    steps = preprocessing(card_of("saga", model.encoder, ("sit", "walk", "run")))
    return TrainedModel(
        "imu_saga", model, lambda: model, "window", (40, 6), ("sit", "walk", "run"), steps, examples, details={}
    )


@pytest.fixture(scope="session")
def motion_bundle(motion_run, tmp_path_factory) -> Path:
    """The motion model, exported."""
    out = tmp_path_factory.mktemp("motion") / "bundle"
    export_model(motion_run, out)
    return out


MOTION_TASKS = {
    "activity": ("lora", ("sit", "walk", "run")),
    "user": ("flora", ("Ann", "Bo", "Cy", "Di")),
    "placement": ("head", ("pocket", "hand")),
}


def motion_task(run: TrainedModel, name: str) -> Task:
    """A task on the motion model's encoder, with an adapter and a head of its own."""
    method, classes = MOTION_TASKS[name]
    torch.manual_seed(len(classes))
    model = Classifier(copy.deepcopy(run.model.encoder), len(classes))
    model.calibrate(run.examples)
    adapted = fill(attach_method(model, FinetuneConfig(method=method, encoder="saga", r=3)), seed=len(classes))
    with torch.no_grad():
        adapted.get_parameter("head.weight").mul_(8)
    steps = run.preprocessing
    trained = dataclasses.replace(run, model=adapted, classes=classes, preprocessing=steps, examples=run.examples[:8])
    return Task(name, trained, ("head",), ("standardise",), "encoder.")


@pytest.fixture(scope="session")
def motion_tasks(motion_run) -> dict[str, Task]:
    """Three tasks of other numbers of classes on one encoder."""
    return {name: motion_task(motion_run, name) for name in MOTION_TASKS}


@pytest.fixture(scope="session")
def tasks_bundle(motion_tasks, tmp_path_factory) -> Path:
    """One base and the tasks' adapters."""
    out = tmp_path_factory.mktemp("tasks") / "bundle"
    export_multi("cd" * 32, list(motion_tasks.values()), out)
    return out


@pytest.fixture(scope="session")
def tasks_site(tasks_bundle, web_runtime, tmp_path_factory) -> Path:
    """The page of one base with three tasks."""
    out = tmp_path_factory.mktemp("tasks-site") / "site"
    build_site(tasks_bundle, out, SiteOptions(web_runtime, "One phone, three questions"))
    return out


@pytest.fixture(scope="session")
def tasks_page(tasks_site) -> Iterator[str]:
    """Address of the page of three tasks."""
    with served(tasks_site) as address:
        yield address


@pytest.fixture(scope="session")
def vision_data() -> DataConfig:
    """What the image model expects."""
    return DataConfig(12, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic", 0.9)


@pytest.fixture(scope="session")
def vision_bundle(vision_data, tmp_path_factory) -> Path:
    """A small image model, exported."""
    torch.manual_seed(2)
    out = tmp_path_factory.mktemp("vision") / "bundle"
    export_model(trained_toy(ConvNet(), ConvNet, preprocessing=describe_preprocessing(vision_data)), out)
    return out


@pytest.fixture(scope="session")
def web_runtime(request) -> Path:
    """onnxruntime-web as npm installs it: $SAGA_PEFT_ONNXRUNTIME_WEB, or fetched once into pytest's cache."""
    given = os.environ.get("SAGA_PEFT_ONNXRUNTIME_WEB")
    if given:
        return Path(given)
    folder = request.config.cache.mkdir("onnxruntime-web") / VERSION
    if not folder.is_dir():
        try:
            files = runtime_files(None)
        except (ExportError, MissingPackageError) as error:
            pytest.skip(f"onnxruntime-web cannot be fetched: {error}")
        with appearing_folder(folder) as temporary:
            (temporary / "dist").mkdir()
            for name, data in files.items():
                (temporary / "dist" / name).write_bytes(data)
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Page]:
    """A tab of a headless Chromium, shared by all tests."""
    program = find_browser()
    if program is None:
        pytest.skip(f"no browser installed ({', '.join(NAMES)})")
    with browser_page(program) as page:
        yield page


@pytest.fixture
def tab(browser) -> Page:
    """The shared tab, its notes forgotten."""
    browser.send("Page.navigate", url="about:blank")
    browser.requests.clear()
    browser.problems.clear()
    return browser


@pytest.fixture(scope="session")
def motion_site(motion_bundle, web_runtime, tmp_path_factory) -> Path:
    """The page of the motion model."""
    out = tmp_path_factory.mktemp("motion-site") / "site"
    build_site(motion_bundle, out, SiteOptions(web_runtime, "What are you doing?"))
    return out


@pytest.fixture(scope="session")
def motion_page(motion_site) -> Iterator[str]:
    """Address of the motion model's page."""
    with served(motion_site) as address:
        yield address


@pytest.fixture(scope="session")
def vision_page(vision_bundle, web_runtime, tmp_path_factory) -> Iterator[str]:
    """Address of the image model's page."""
    out = tmp_path_factory.mktemp("vision-site") / "site"
    build_site(vision_bundle, out, SiteOptions(web_runtime))
    with served(out) as address:
        yield address
