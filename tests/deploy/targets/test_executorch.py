"""ExecuTorch without its package names the extra; with a stand-in for it the target writes and reads as it says."""

import sys
import weakref
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from deploy import BundleError, export_model
from deploy.program import export_program
from deploy.targets.executorch import ExecutorchTarget
from shared_peft.errors import ExportError, MissingPackageError
from tests.deploy.toys import ConvNet, trained_toy

XNNPACK = "executorch.backends.xnnpack.partition.xnnpack_partitioner"


@pytest.fixture
def stand_in(monkeypatch):
    """A package with executorch's names: what is lowered is kept, and run by PyTorch."""
    lowered = {}

    class Lowered:
        def __init__(self, program):
            self.program = program

        def to_executorch(self):
            lowered["program"] = self.program
            self.buffer = b"pte"
            return self

    class Runtime:
        @staticmethod
        def get():
            return Runtime()

        def load_program(self, path):
            if path.read_bytes() != b"pte":
                raise RuntimeError("Program identifier 'b' != expected 'ET12'")
            return self

        def load_method(self, name):
            assert name == "forward"
            return Method(weakref.ref(self))

    class Method:
        def __init__(self, program):
            self.program = program

        def execute(self, inputs):
            assert self.program() is not None, "the real one crashes without its program"
            return [lowered["program"].module()(*inputs)]

    members = {
        "executorch": {},
        "executorch.exir": {"to_edge_transform_and_lower": lambda program, partitioner: Lowered(program)},
        XNNPACK: {"XnnpackPartitioner": object},
        "executorch.runtime": {"Runtime": Runtime},
    }
    for name, values in members.items():
        module = ModuleType(name)
        module.__dict__.update(values)
        monkeypatch.setitem(sys.modules, name, module)
    return lowered


def test_missing_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "executorch", None)
    monkeypatch.setitem(sys.modules, "executorch.exir", None)
    with pytest.raises(MissingPackageError, match=r'needs the package executorch.*"saga-peft\[executorch\]"'):
        export_model(trained_toy(ConvNet(), ConvNet), tmp_path / "bundle", target="executorch")
    assert list(tmp_path.iterdir()) == []


def test_file_takes_one_row_and_more_rows_one_after_the_other(tmp_path, stand_in):
    torch.manual_seed(0)
    model, target = ConvNet().eval(), ExecutorchTarget()
    written = target.write(export_program(model, (3, 12, 12)), tmp_path / "m.pte", input_name="image", opset=20)
    assert stand_in["program"].range_constraints == {}
    assert written.nodes > 5
    inputs = torch.randn(4, 3, 12, 12)
    with torch.no_grad():
        expected = model(inputs).numpy()
    np.testing.assert_allclose(target.open(tmp_path / "m.pte")(inputs.numpy()), expected, rtol=0, atol=1e-5)


def test_operation_that_cannot_be_lowered_is_refused(tmp_path, stand_in, monkeypatch):
    def fail(program, partitioner):
        raise AssertionError("no kernel")

    monkeypatch.setattr(sys.modules["executorch.exir"], "to_edge_transform_and_lower", fail)
    program = export_program(nn.Linear(4, 2).eval(), (4,))
    with pytest.raises(ExportError, match="every operation must have an ExecuTorch form, got no kernel"):
        ExecutorchTarget().write(program, tmp_path / "m.pte", input_name="x", opset=20)
    assert list(tmp_path.iterdir()) == []


def test_file_that_is_no_program_is_refused(tmp_path, stand_in):
    (tmp_path / "m.pte").write_bytes(b"nonsense")
    with pytest.raises(BundleError, match="m.pte: must be a program ExecuTorch loads, got Program identifier"):
        ExecutorchTarget().open(tmp_path / "m.pte")
