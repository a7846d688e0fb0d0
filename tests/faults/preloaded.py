"""What most commands of the fault tests import: copies of a process that has imported this start at once."""

import importlib

for _name in (
    "imu_saga.commands",
    "imu_saga.search.pictures",
    "matplotlib.figure",
    "scipy.stats",
    "sklearn.linear_model",
    "tyro",
    "vision.commands",
    "tests.faults.cases",
):
    importlib.import_module(_name)
