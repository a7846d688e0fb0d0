"""Runs gone on with in somebody else's folder: nothing is written through the links in it."""

from pathlib import Path

import pytest

from shared_peft.errors import RunError
from shared_peft.training import RunFolder


@pytest.mark.parametrize(
    "name", [".lock", "metrics.jsonl", "checkpoint.pt", "adapter", "model.safetensors", "config.json"]
)
def test_a_run_is_not_gone_on_with_where_a_file_is_a_link(name: str, tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", "vision.finetune", {})
    outside = tmp_path / "outside"
    outside.write_text((folder.path / "config.json").read_text())
    (folder.path / name).unlink(missing_ok=True)
    (folder.path / name).symlink_to(outside)
    before = outside.read_bytes()
    with pytest.raises(RunError, match=rf"run: a folder that is written to must hold no links, got {name}\."):
        RunFolder.create(tmp_path / "run", "vision.finetune", {}, resume=True)
    with pytest.raises(RunError, match="must hold no links"), folder.locked():
        folder.log(step=1)
    assert outside.read_bytes() == before


def test_a_run_folder_reached_by_a_link_is_gone_on_with(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", "vision.finetune", {})
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with RunFolder.create(tmp_path / "link", "vision.finetune", {}, resume=True).locked():
        RunFolder(tmp_path / "link").log(step=1)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == '{"step": 1}\n'
