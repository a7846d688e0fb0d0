"""Windows and a store of them, for all tests of stores."""

import pytest

from imu_saga.store.store import WindowStore
from imu_saga.windows import WindowSet
from tests.imu_saga.planted import people
from tests.imu_saga.store.stored import spotted, written


@pytest.fixture(scope="package")
def windows() -> WindowSet:
    return spotted(people(subjects=5, samples=41))  # 41: the last byte of a mask is not full


@pytest.fixture(scope="package")
def store(windows, tmp_path_factory) -> WindowStore:
    return written(tmp_path_factory.mktemp("store") / "s", windows)
