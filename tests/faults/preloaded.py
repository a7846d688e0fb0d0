"""Everything the commands of the fault tests import: copies of a process that has imported this start at once."""

import importlib

for _name in (
    "deploy.bundle",
    "deploy.commands",
    "deploy.multi",
    "distributed",
    "imu_saga.commands",
    "imu_saga.search.pictures",
    "matplotlib.figure",
    "onnxruntime",
    "onnxscript",
    "scipy.stats",
    "sklearn.linear_model",
    "torch.onnx._internal.exporter._core",
    "tyro",
    "vision.commands",
    "tests.faults.cases",
):
    importlib.import_module(_name)
