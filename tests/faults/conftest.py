"""What the fault tests share: the runs that commands start from, and a limit on what may be written."""

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.cases import make_materials


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """Runs and files for commands to start from."""
    return make_materials(tmp_path_factory.mktemp("faults") / "made")


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let the system cut every file off at ``size`` bytes, as a full disk does, whoever writes it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
