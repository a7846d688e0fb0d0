"""The files of a site that come from a bundle: one model, or a base and the tensors of each task."""

from dataclasses import dataclass
from pathlib import Path

from safetensors.numpy import save

from deploy.bundle_files import MANIFEST
from deploy.golden import GOLDEN
from deploy.manifest import Manifest, verify_bundle
from deploy.multi.golden import LOGITS
from deploy.multi.manifest import MultiManifest, holds_tasks, verify_multi
from deploy.multi.required import required_graph
from shared_peft.errors import ExportError

MODEL_FOLDER = "model"


@dataclass(frozen=True)
class Adapter:
    """One task as the page offers it.

    Args:
        name: what the page calls it.
        classes: class names in the order of the logits.
        logits: name of its logits in the golden sample.
        tensors: name of the file that holds its tensors, or "" where the model is whole without.
    """

    name: str
    classes: tuple[str, ...]
    logits: str = "logits"
    tensors: str = ""


@dataclass(frozen=True)
class SiteModel:
    """What a site takes from a bundle.

    Args:
        manifest: the bundle's.
        files: contents by name; they go to the folder `MODEL_FOLDER`.
        adapters: the tasks, at least one; the first is active when the page opens.
    """

    manifest: Manifest | MultiManifest
    files: dict[str, bytes]
    adapters: tuple[Adapter, ...]


def read_model(bundle: Path) -> SiteModel:
    """Verify a bundle and return what a site takes from it.

    Raises:
        BundleError: the bundle was changed or is incomplete.
        ExportError: the bundle has no ONNX file, or one that takes other numbers than the page gives.
    """
    manifest = verify_multi(bundle) if holds_tasks(bundle) else verify_bundle(bundle)
    if not manifest.model_file.endswith(".onnx"):
        raise ExportError(bundle, "must hold an .onnx file", manifest.model_file, "Export with --target onnx")
    if manifest.input.dtype != "float32":
        fix = "Export with --preprocess none: the page prepares pictures itself"
        raise ExportError(bundle, "its model must take float32", manifest.input.dtype, fix)
    names = (manifest.model_file, GOLDEN, MANIFEST)
    files = {name: (bundle / name).read_bytes() for name in names}
    if not isinstance(manifest, MultiManifest):
        return SiteModel(manifest, files, (Adapter("default", manifest.classes),))
    graph = required_graph(bundle, manifest)
    adapters = tuple(
        Adapter(name, task.classes, f"{LOGITS}{name}", f"{name}.safetensors") for name, task in manifest.tasks.items()
    )
    tensors = {each.tensors: save(graph.tensors[each.name]) for each in adapters}
    return SiteModel(manifest, files | {manifest.model_file: graph.model} | tensors, adapters)
