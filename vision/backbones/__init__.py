"""Backbones: one file a family, each registers itself; `build_backbone` finds a member by name."""

from shared_peft.registry import import_siblings
from vision.backbones.build import build_backbone, build_from_spec, correlate, find_family
from vision.backbones.family import BACKBONES, Backbone, BackboneSpec, DataConfig, Family

import_siblings(__name__, __path__)

__all__ = [
    "BACKBONES",
    "Backbone",
    "BackboneSpec",
    "DataConfig",
    "Family",
    "build_backbone",
    "build_from_spec",
    "correlate",
    "find_family",
]
