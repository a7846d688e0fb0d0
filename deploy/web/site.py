"""A bundle, of one task or many, as a static site: page, model, runtime, and the list of files it needs offline."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from deploy.web.model_files import MODEL_FOLDER, read_model
from deploy.web.runtime import VERSION, runtime_files
from deploy.web.settings import site_settings
from shared_peft.atomic import appearing_folder
from shared_peft.errors import ExportError

STATIC = Path(__file__).parent / "static"
SETTINGS, FILE_LIST, APP = "settings.json", "files.js", "app.webmanifest"
_APP_COLOUR = "#0b5cad"  # of icon.svg


@dataclass(frozen=True)
class SiteOptions:
    """How a site is built.

    Args:
        runtime: folder of an installed onnxruntime-web; None fetches it with npm.
        title: the page's heading; "" makes one of the model's name.
        hop_s: time from one window to the next [s], motion models only; None takes a window's length.
    """

    runtime: Path | None = None
    title: str = ""
    hop_s: float | None = None


def build_site(bundle: Path, out: Path, options: SiteOptions | None = None) -> list[str]:
    """Write a site.

    Args:
        bundle: a bundle's folder.
        out: the site's folder; must not exist.
        options: how it is built.

    Returns:
        The names of its files.

    Raises:
        BundleError: the bundle was changed or is incomplete.
        ExportError: ``out`` exists, the bundle has no ONNX file, or the runtime is not the pinned one.
        MissingPackageError: the runtime must be fetched and npm is not installed.
    """
    options = options or SiteOptions()
    if out.exists() or out.is_symlink():
        raise ExportError(out, "must be a new folder", "something that exists", "Choose another --out, or remove it")
    model = read_model(bundle)
    settings = site_settings(model, title=options.title, hop_s=options.hop_s)
    files = {path.relative_to(STATIC).as_posix(): path.read_bytes() for path in STATIC.rglob("*") if path.is_file()}
    files |= {f"{MODEL_FOLDER}/{name}": data for name, data in model.files.items()}
    files |= {f"runtime/{name}": data for name, data in runtime_files(options.runtime).items()}
    files |= {SETTINGS: _json(settings), APP: _app(settings["title"])}
    files[FILE_LIST] = _file_list(files)
    with appearing_folder(out) as folder:
        for name, data in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return sorted(files)


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _app(title: str) -> bytes:
    """Return the web app manifest, which lets a phone keep the page on its home screen."""
    icon = {"src": "icon.svg", "sizes": "any", "type": "image/svg+xml"}
    app = {"name": title, "short_name": title[:12], "start_url": "./", "display": "standalone", "icons": [icon]}
    return _json({**app, "theme_color": _APP_COLOUR, "background_color": _APP_COLOUR})


def _file_list(files: dict[str, bytes]) -> bytes:
    """Return the script that tells the service worker what to keep; its version is a hash of everything."""
    digest = hashlib.sha256(VERSION.encode())
    for name, data in sorted(files.items()):
        digest.update(name.encode() + b"\0" + hashlib.sha256(data).digest())
    kept = ["./", *sorted(name for name in files if name != "worker.js")]
    return (
        f"self.SITE_VERSION = {json.dumps(digest.hexdigest()[:16])};\nself.SITE_FILES = {json.dumps(kept)};\n".encode()
    )
