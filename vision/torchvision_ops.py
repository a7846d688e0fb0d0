"""Lets `import torchvision` work beside a torch it was not compiled for (PyPI's Linux wheel beside a CPU-only torch).

The wheel's C++ library then fails to load and `import torchvision` dies with "operator torchvision::nms does not
exist". Transforms, data sets and models need none of those operators: declaring the two schemas is enough.
"""

import contextlib
import importlib.util
from pathlib import Path

import torch

_MISSING_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[torch.library.Library] = []  # a Library undoes its declarations when it is collected


def declare_missing_operators() -> bool:
    """Declare torchvision's operators if its C++ library cannot load; call before importing torchvision or timm.

    Returns:
        True if the operators had to be declared (now or earlier), False if torchvision brought its own.
    """
    if _declared:
        return True
    if _exists("nms") or _load_native_library():
        return False
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _MISSING_SCHEMAS:
        if not _exists(schema.split("(")[0]):
            library.define(schema)
    _declared.append(library)
    return True


def _exists(operator: str) -> bool:
    return hasattr(torch.ops.torchvision, operator)


def _load_native_library() -> bool:
    """Load torchvision's own C++ library, as its import would; return whether it defined its operators."""
    spec = importlib.util.find_spec("torchvision")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted([*Path(folder).glob("_C*.so"), *Path(folder).glob("_C*.pyd")]):
            with contextlib.suppress(OSError, RuntimeError):
                torch.ops.load_library(path)
    return _exists("nms")
