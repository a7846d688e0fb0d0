"""settings.json of a site: what the page must know of a bundle, the filter coefficients it does not compute itself."""

import hashlib
from typing import Any

from deploy.bundle_files import MANIFEST
from deploy.golden import GOLDEN
from deploy.manifest import Manifest
from deploy.multi.manifest import MultiManifest
from deploy.parity import TOLERANCE
from deploy.preprocessor import INSIDE
from deploy.web.model_files import MODEL_FOLDER, Adapter, SiteModel
from imu_saga.recording import ACC_CHANNELS, GYRO_CHANNELS
from imu_saga.signal.gravity import CausalHighPass
from shared_peft.errors import ExportError

MAX_GAP_S = 0.5  # as imu_saga.streaming.source
MIN_VALID = 0.8  # as imu_saga.streaming.classifier
SETTLE_SAMPLES = 120  # ours: two seconds at the 60 Hz of most phones, before the first window starts


def site_settings(model: SiteModel, *, title: str = "", hop_s: float | None = None) -> dict[str, Any]:
    """Return what the page must know, as plain JSON values.

    Args:
        model: what the site takes from a bundle.
        title: the page's heading; "" makes one.
        hop_s: time from one window to the next [s], motion models only; None takes a window's length.

    Raises:
        ExportError: a kind of model the page has no part for, or a hop that cannot be.
    """
    manifest = model.manifest
    if manifest.kind not in _PARTS:
        must = f"kind must be one of {', '.join(sorted(_PARTS))}"
        raise ExportError(MANIFEST, must, repr(manifest.kind), "Export a run of one of these packages")
    if INSIDE in manifest.preprocessing:
        must = "preprocessing must be outside the graph, where the page does it"
        raise ExportError(MANIFEST, must, "inside", "Export the run with --preprocess none")
    return {
        "title": title or _title(model),
        "kind": manifest.kind,
        "model": _checked(model, manifest.model_file),
        "input": {"name": manifest.input.name, "shape": list(manifest.input.shape)},
        "output": manifest.output_name,
        "adapters": [_adapter(model, each) for each in model.adapters],
        "golden": {**_checked(model, GOLDEN), "tolerance": TOLERANCE},
        "preprocessing": manifest.preprocessing,
        **_PARTS[manifest.kind](manifest, hop_s),
    }


def _title(model: SiteModel) -> str:
    """Return the model's name, and how many classes or tasks it has."""
    manifest = model.manifest
    multi = isinstance(manifest, MultiManifest)
    details = next(iter(manifest.tasks.values())).details if multi else manifest.details
    name = details.get("backbone") or details.get("encoder") or manifest.kind
    count = f"{len(manifest.tasks)} tasks" if multi else f"{len(manifest.classes)} classes"
    return f"{str(name).rpartition('/')[2]}, {count}"


def _adapter(model: SiteModel, adapter: Adapter) -> dict[str, Any]:
    return {
        "name": adapter.name,
        "classes": list(adapter.classes),
        "logits": adapter.logits,
        "tensors": _checked(model, adapter.tensors) if adapter.tensors else None,
    }


def _checked(model: SiteModel, name: str) -> dict[str, str]:
    return {"path": f"{MODEL_FOLDER}/{name}", "sha256": hashlib.sha256(model.files[name]).hexdigest()}


def _stream(manifest: Manifest | MultiManifest, hop_s: float | None) -> dict[str, Any]:
    steps = manifest.preprocessing
    for field in ("rate_hz", "samples", "channels", "gravity"):
        if field not in steps:
            must = f"preprocessing must hold {field}"
            raise ExportError(MANIFEST, must, ", ".join(steps) or "nothing", "Export the run again")
    rate_hz, samples, channels = float(steps["rate_hz"]), int(steps["samples"]), list(steps["channels"])
    unknown = [name for name in channels if name not in (*ACC_CHANNELS, *GYRO_CHANNELS)]
    if unknown:
        must = f"channels must be among {', '.join((*ACC_CHANNELS, *GYRO_CHANNELS))}, which browsers measure"
        raise ExportError(MANIFEST, must, ", ".join(unknown), "Fine-tune a model without these channels")
    hop = samples if hop_s is None else round(hop_s * rate_hz)
    if hop < 1:
        must = f"must be a sample or more, {1 / rate_hz:g} s"
        raise ExportError("--hop-s", must, hop_s, "Give the time from one window to the next")
    stream = {
        "rate_hz": rate_hz,
        "samples": samples,
        "hop": hop,
        "channels": channels,
        "high_pass": _high_pass(rate_hz) if steps["gravity"] == "removed" else None,
        "max_gap_s": MAX_GAP_S,
        "settle_samples": SETTLE_SAMPLES,
        "min_valid": MIN_VALID,
    }
    return {"stream": stream}


def _high_pass(rate_hz: float) -> dict[str, Any]:
    made = CausalHighPass(rate_hz, columns=1)
    return {"sections": made.sections.tolist(), "settled": made.settled[:, :, 0].tolist()}


def _picture(manifest: Manifest | MultiManifest, hop_s: float | None) -> dict[str, Any]:
    if hop_s is not None:
        raise ExportError("--hop-s", "must be left out for an image model", hop_s, "Leave it out")
    for field in ("channels", "height_px", "width_px", "interpolation", "mean", "std"):
        if field not in manifest.preprocessing:
            must = f"preprocessing must hold {field}"
            raise ExportError(MANIFEST, must, ", ".join(manifest.preprocessing) or "nothing", "Export the run again")
    return {}


_PARTS = {"imu_saga": _stream, "vision": _picture}
