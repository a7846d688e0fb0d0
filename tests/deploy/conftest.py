"""One export per toy network and adapter method, shared by all deploy tests."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch.export import ExportedProgram

from deploy import EXPORT_TARGETS, export_model
from deploy.multi import export_multi
from deploy.targets import ExportTarget, Written
from shared_peft import METHODS, get_peft_model
from shared_peft.run_config import config_for_run
from shared_peft.training import TrainedModel
from tests.deploy.toys import ConvNet, SequenceNet, trained_toy

NETWORKS = {"conv": ConvNet, "sequence": SequenceNet}
PAIRS = [*(("conv", method) for method in METHODS.names()), ("sequence", "lora_tsd")]


@pytest.fixture(scope="package", autouse=True)
def _one_thread():
    """Toy networks are slower on two threads than on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def adapted_toy(network: str, method: str) -> TrainedModel:
    """Return a toy with an adapter on every layer, its zero-initialised parts filled."""
    generator = torch.Generator().manual_seed(3)
    torch.manual_seed(3)
    base = NETWORKS[network]
    plain = base()
    fields = {"r": 2} if "r" in METHODS.get(method).config_class.__dataclass_fields__ else {}
    model = get_peft_model(plain, config_for_run(plain, method, fields, steps=10), generator=generator)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return trained_toy(model, base)


@pytest.fixture(scope="session")
def bundle_of(tmp_path_factory) -> Callable[[str, str], tuple[TrainedModel, Path]]:
    """Return (trained model, bundle) of a toy and a method; each pair is exported once."""
    made: dict[tuple[str, str], tuple[TrainedModel, Path]] = {}

    def make(network: str = "conv", method: str = "flora") -> tuple[TrainedModel, Path]:
        if (network, method) not in made:
            trained, out = adapted_toy(network, method), tmp_path_factory.mktemp(f"{network}-{method}") / "bundle"
            export_model(trained, out)
            made[network, method] = trained, out
        return made[network, method]

    return make


@pytest.fixture(scope="session")
def conv_tasks_bundle(tmp_path_factory) -> Path:
    """One toy base with two tasks, of other ranks and other numbers of classes, exported once for all modules."""
    from tests.deploy.multi.conftest import CONV_TASKS, MARK, conv_task

    out = tmp_path_factory.mktemp("conv-tasks") / "multi"
    export_multi(MARK, [conv_task(name, rank, classes) for name, (rank, classes) in CONV_TASKS.items()], out)
    return out


class InMemoryTarget(ExportTarget):
    """A target that converts nothing, so that gates can be tested quickly."""

    file_name = "model.bin"
    programs: ClassVar[dict[Path, ExportedProgram]] = {}

    def check_packages(self) -> None:
        return

    def write(self, program, path, *, input_name, opset):
        self.programs[path] = program
        path.write_bytes(b"in memory")
        calls = (node.target for node in program.graph.nodes if node.op == "call_function")
        return Written(0, Counter(call.__name__.partition(".")[0] for call in calls))

    def open(self, path, *, threads=0):
        module = self.programs[path].module()
        return lambda inputs: module(torch.from_numpy(inputs)).detach().numpy()


@pytest.fixture
def in_memory(monkeypatch) -> str:
    """The name of a registered in-memory target."""
    monkeypatch.setitem(EXPORT_TARGETS._entries, "in_memory", InMemoryTarget)
    return "in_memory"


@pytest.fixture
def bundle_copy(bundle_of, tmp_path) -> Path:
    """A bundle of its own, to damage."""
    return Path(shutil.copytree(bundle_of()[1], tmp_path / "copy"))
