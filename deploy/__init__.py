"""From an adapted model to a phone: merged ONNX, checked for parity, with a manifest."""

from deploy.bundle import export_model
from deploy.bundle_files import BundleError
from deploy.manifest import Manifest, load_manifest, verify_bundle
from deploy.runs import load_trained
from deploy.runtime import Answer, BundleRunner
from deploy.targets import EXPORT_TARGETS

__all__ = [
    "EXPORT_TARGETS",
    "Answer",
    "BundleError",
    "BundleRunner",
    "Manifest",
    "export_model",
    "load_manifest",
    "load_trained",
    "verify_bundle",
]
