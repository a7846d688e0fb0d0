"""A segmenter with outputs for more classes, that starts where the old one is."""

import dataclasses
import math

import torch

from vision.backbones.family import Backbone
from vision.segmentation.model import build_segmenter


def widen(backbone: Backbone, new_classes: int) -> Backbone:
    """Return a copy of a segmenter with outputs for new classes after the old ones.

    The background's probability is shared out evenly among it and the new classes, so that those of the old classes
    stay as they were (Cermelli et al. 2020, arXiv:2002.00718): a new class starts with the
    background's weights, and all of them with its bias less log(1 + new classes).

    Args:
        backbone: a segmenter without adapter; not changed.
        new_classes: how many.

    Returns:
        A segmenter with weights of its own.
    """
    spec = dataclasses.replace(backbone.spec, num_classes=backbone.spec.num_classes + new_classes)
    wide = build_segmenter(spec)
    stored = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    weight, bias = stored["classifier.weight"], stored["classifier.bias"]
    bias[0] -= math.log(1 + new_classes)
    stored["classifier.weight"] = torch.cat([weight, weight[:1].expand(new_classes, -1, -1, -1)])
    stored["classifier.bias"] = torch.cat([bias, bias[:1].expand(new_classes)])
    wide.model.load_state_dict(stored)
    return dataclasses.replace(wide, data=backbone.data)
