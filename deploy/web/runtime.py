"""onnxruntime-web for the page: one pinned version, taken from a folder or fetched with npm, held to its hashes."""

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from shared_peft.errors import ExportError, MissingPackageError

PACKAGE, VERSION = "onnxruntime-web", "1.23.2"
INTEGRITY = "sha512-T09JUtMn+CZLk3mFwqiH0lgQf+4S7+oYHHtk6uhaYAAJI95bTcKi5bOOZYwORXfS/RLZCjDDEXGWIuOCAFlEjg=="
SCRIPT, WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
SHA256 = {
    SCRIPT: "cace3b98bee45c1c40ed04e07b984fb66012acacb702e6aecd9008239bf35e99",
    WASM: "45eaee27761ad883742a8d4b8fce1538d60ce43b51adf1726fafccc59b8c1a15",
}
_FIX = f"Run `npm install {PACKAGE}@{VERSION}` and give --runtime node_modules/{PACKAGE}"
_TIMEOUT_S = 600


def runtime_files(folder: Path | None) -> dict[str, bytes]:
    """Return the files of onnxruntime-web that the page needs, by name.

    Args:
        folder: an installed npm package; None fetches it with npm.

    Raises:
        ExportError: a file is missing or is not the pinned version's, or npm could not fetch it.
        MissingPackageError: no folder was given and npm is not installed.
    """
    found = _fetched() if folder is None else _installed(folder)
    for name, expected in SHA256.items():
        digest = hashlib.sha256(found[name]).hexdigest()
        if digest != expected:
            must = f"must be that of {PACKAGE} {VERSION}, SHA-256 {expected[:12]}..."
            raise ExportError(name, must, f"{digest[:12]}...", _FIX)
    return found


def check_integrity(data: bytes, where: object, expected: str = INTEGRITY) -> None:
    """Raise ExportError where bytes do not have the npm integrity ("sha512-" and base64) that is pinned."""
    got = "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()
    if got != expected:
        raise ExportError(where, f"must have the integrity {expected[:23]}...", f"{got[:23]}...", _FIX)


def _installed(folder: Path) -> dict[str, bytes]:
    for name in SHA256:
        if not (folder / "dist" / name).is_file():
            raise ExportError(folder / "dist" / name, f"must be a file of {PACKAGE} {VERSION}", "no such file", _FIX)
    return {name: (folder / "dist" / name).read_bytes() for name in SHA256}


def _fetched() -> dict[str, bytes]:
    npm = shutil.which("npm")
    if npm is None:
        raise MissingPackageError("npm", f"must be installed to fetch {PACKAGE}", "no npm on the PATH", _FIX)
    with tempfile.TemporaryDirectory() as scratch:
        command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--silent", "--pack-destination", scratch]
        try:
            done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise ExportError("npm pack", f"must answer within {_TIMEOUT_S} s", "no answer", _FIX) from error
        archive = Path(scratch, f"{PACKAGE}-{VERSION}.tgz")
        if done.returncode or not archive.is_file():
            reason = (done.stderr.strip().splitlines() or ["no file"])[-1][:300]
            raise ExportError("npm pack", f"must fetch {PACKAGE}@{VERSION}", reason, _FIX)
        check_integrity(archive.read_bytes(), archive.name)
        with tarfile.open(archive) as members:
            return {name: _member(members, f"package/dist/{name}") for name in SHA256}


def _member(members: tarfile.TarFile, name: str) -> bytes:
    stream = members.extractfile(name)
    assert stream is not None  # the archive's hash is pinned
    return stream.read()
