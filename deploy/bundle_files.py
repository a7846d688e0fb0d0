"""The files of a bundle: plain names, sizes and SHA-256; a link, a missing or a changed file is refused."""

import re
from dataclasses import dataclass
from pathlib import Path

from shared_peft.atomic import sha256_of, write_text
from shared_peft.errors import ExportError

MANIFEST, SUMS = "manifest.json", "SHA256SUMS"
CARD, GOLDEN, PARITY = "README.md", "golden.safetensors", "parity.json"
FIX = "Export it again, or fetch the bundle again"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SUM_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_LARGEST_TEXT = 16 << 20


class BundleError(ExportError):
    """A bundle that is incomplete, was changed, or cannot be trusted."""


@dataclass(frozen=True)
class FileEntry:
    """One file: its SHA-256 in hexadecimal and its size [bytes]."""

    sha256: str
    size_bytes: int


def describe_files(folder: Path) -> dict[str, FileEntry]:
    """Return hash and size of every file in ``folder``, by name."""
    return {path.name: FileEntry(sha256_of(path), path.stat().st_size) for path in sorted(folder.iterdir())}


def is_plain_name(name: str) -> bool:
    """Tell whether a name is a file's own, without a folder."""
    return _PLAIN_NAME.fullmatch(name) is not None


def write_sums(bundle: Path, files: dict[str, FileEntry]) -> None:
    """Write SHA256SUMS of the files and of manifest.json (`sha256sum -c SHA256SUMS` reads it)."""
    sums = {name: entry.sha256 for name, entry in files.items()} | {MANIFEST: sha256_of(bundle / MANIFEST)}
    write_text(bundle / SUMS, "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())))


def read_sums(bundle: Path) -> dict[str, str]:
    """Return the SHA-256 by name that SHA256SUMS lists.

    Raises:
        BundleError: a line of another kind, or a name twice.
    """
    path = plain_file(bundle, SUMS)
    sums: dict[str, str] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        match = _SUM_LINE.fullmatch(line)
        if match is None or not is_plain_name(match[2]) or match[2] in sums:
            must = "must be a SHA-256, two spaces and a plain file name, each name once"
            raise BundleError(f"{path}, line {number}", must, repr(line[:120]), FIX)
        sums[match[2]] = match[1]
    return sums


def check_manifest_sum(bundle: Path, sums: dict[str, str]) -> None:
    """Raise BundleError where manifest.json is not the one that SHA256SUMS lists."""
    if sha256_of(plain_file(bundle, MANIFEST)) != sums.get(MANIFEST):
        raise BundleError(bundle / MANIFEST, f"must have the hash that {SUMS} lists", "another", FIX)


def check_files(bundle: Path, files: dict[str, FileEntry], sums: dict[str, str]) -> None:
    """Raise BundleError where a file is missing, changed, cut off, a link, or listed otherwise in SHA256SUMS."""
    hashes = {name: entry.sha256 for name, entry in files.items()} | {MANIFEST: sums[MANIFEST]}
    if hashes != sums:
        odd = ", ".join(sorted(name for name in hashes.keys() | sums.keys() if hashes.get(name) != sums.get(name)))
        raise BundleError(bundle / SUMS, f"must list the hashes that {MANIFEST} lists", f"others for {odd}", FIX)
    for name, entry in files.items():
        path = plain_file(bundle, name)
        if path.stat().st_size != entry.size_bytes:
            raise BundleError(path, f"must have {entry.size_bytes} bytes", path.stat().st_size, FIX)
        if (digest := sha256_of(path)) != entry.sha256:
            raise BundleError(path, f"must have SHA-256 {entry.sha256[:12]}...", f"{digest[:12]}...", FIX)


def plain_file(bundle: Path, name: str) -> Path:
    """Return the path of a file in the bundle's folder.

    Raises:
        BundleError: no such file, or a link.
    """
    path = bundle / name
    if path.is_symlink() or not path.is_file():
        got = "a link" if path.is_symlink() else "no such file"
        raise BundleError(path, "must be a file in the bundle's folder", got, FIX)
    return path


def read_text(path: Path) -> str:
    """Return a file of text.

    Raises:
        BundleError: no such file, a link, one that is too large, or no text.
    """
    plain_file(path.parent, path.name)
    if path.stat().st_size > _LARGEST_TEXT:
        raise BundleError(path, f"must be under {_LARGEST_TEXT} bytes", path.stat().st_size, FIX)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BundleError(path, "must be UTF-8 text", str(error), FIX) from error
