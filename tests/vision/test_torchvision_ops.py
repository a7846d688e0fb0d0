"""torchvision and timm import and work beside a torch that torchvision was not compiled for."""

import subprocess
import sys

from vision.torchvision_ops import declare_missing_operators

PROGRAM = """
from vision.torchvision_ops import declare_missing_operators
first, second = declare_missing_operators(), declare_missing_operators()
import timm, torch, torchvision
from torchvision.transforms.v2 import functional
assert first == second
assert hasattr(torch.ops.torchvision, "nms")
print(functional.resize(torch.full((3, 4, 4), 7, dtype=torch.uint8), [2]).unique().tolist())
"""


def run_python(program: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_torchvision_and_timm_import_after_the_declaration():
    assert run_python(PROGRAM) == "[7]"


def test_declaring_twice_gives_the_same_answer():
    assert declare_missing_operators() == declare_missing_operators()


def test_importing_vision_and_its_commands_imports_no_slow_package():
    program = "import sys, vision.commands; print([n for n in ('timm', 'torchvision', 'sklearn') if n in sys.modules])"
    assert run_python(program) == "[]"


def test_plotting_is_never_imported_with_the_package():
    program = "import sys, vision.commands; print('matplotlib' in sys.modules)"
    assert run_python(program) == "False"
