"""Everything a run imports, so that copies of a process that has imported this start at once."""

import importlib

from vision.torchvision_ops import declare_missing_operators

declare_missing_operators()
for _name in (
    "vision.finetune",
    "torchvision.transforms.v2",
    "timm",
    "accelerate",
    "sklearn.datasets",
    "torch._dynamo",
):
    importlib.import_module(_name)
