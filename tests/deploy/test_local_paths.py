"""Paths of this machine are cut from values and found in files."""

from pathlib import Path

import pytest

from deploy.local_paths import refuse_local_paths, without_paths
from shared_peft.errors import ExportError


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/home/me/weights/a.th", "a.th"),
        ("../shared/data/cifar10/", "cifar10"),
        ("~/runs/one", "one"),
        ("C:\\Users\\me\\a.th", "a.th"),
        (Path("runs/one"), "one"),
        ("m/s^2", "m/s^2"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("resnet20", "resnet20"),
        (0.5, 0.5),
        ({"a": ["/x/y", 1]}, {"a": ["y", 1]}),
    ],
)
def test_paths_are_cut_to_their_last_name(value, expected):
    assert without_paths(value) == expected


@pytest.mark.parametrize(
    "content",
    [
        b'"checkpoint": "/home/somebody/base.th"',
        b'File "/usr/lib/python3/site-packages/x.py"',
        b"\x00\x01/Users/somebody/x\x00",
        b"C:\\\\Users\\\\somebody",
        str(Path.cwd()).encode(),
    ],
)
def test_path_in_a_file_is_found(tmp_path, content):
    (tmp_path / "file").write_bytes(b"before " + content)
    with pytest.raises(ExportError, match="file: must hold no path of the machine"):
        refuse_local_paths([tmp_path / "file"])


def test_secret_path_is_found(tmp_path):
    (tmp_path / "file").write_text("from /elsewhere/run1")
    with pytest.raises(ExportError, match="/elsewhere/run1"):
        refuse_local_paths([tmp_path / "file"], [Path("/elsewhere/run1")])


def test_units_names_and_addresses_are_no_paths(tmp_path):
    (tmp_path / "file").write_text("m/s^2 https://example.org/home/page /blocks.0/attn/MatMul node/usr")
    assert refuse_local_paths([tmp_path / "file"]) is None
