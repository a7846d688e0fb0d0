"""Hostile folders: adapters, runs, checkpoints, stores and bundles that a stranger may hand over, drawn from a seed.

Whatever is changed in them, reading and using them works or costs an error of ours; see `tests.security.guard`.
"""

import json
import shutil
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.security.artefacts import ARTEFACTS
from tests.security.damages import JSON, TENSORS, bytes_changed, no_file
from tests.security.guard import outcome

DRAWS = 8
OTHER = (bytes_changed, no_file)
SUFFIXES = {".json": JSON, ".safetensors": TENSORS}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Return the folder of a sound artefact; each is made once."""
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind.replace(" ", "-")) / "sound"
            ARTEFACTS[kind].make(made[kind])
        return made[kind]

    return folder


def names_read(folder: Path) -> list[str]:
    """Return the files of a folder that loading it reads."""
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    return [name for name in names if Path(name).suffix in (*SUFFIXES, ".onnx", ".onnx_adapter")]


def attack(kind: str, source: Path, name: str, draw: int, room: Path) -> str:
    """Damage one file of a copy, read the copy, and return what became of it."""
    hostile = Path(shutil.copytree(source, room / "hostile"))
    generator = np.random.default_rng([sorted(ARTEFACTS).index(kind), draw, *name.encode()])
    damages = SUFFIXES.get(Path(name).suffix, OTHER)
    damages[draw % len(damages)](hostile / name, generator)
    ARTEFACTS[kind].seal(hostile)
    try:
        return outcome(lambda: ARTEFACTS[kind].load(hostile), hostile)
    finally:
        shutil.rmtree(hostile)


@pytest.mark.filterwarnings("ignore")  # what torch and numpy think of NaN is not the point here
@pytest.mark.parametrize("kind", ARTEFACTS)
def test_a_hostile_folder_loads_or_costs_an_error_of_ours(kind, sound, tmp_path):
    source, found = sound(kind), Counter()
    read = names_read(source)
    for name in read:
        for draw in range(DRAWS):
            try:
                found[attack(kind, source, name, draw, tmp_path)] += 1
            except Exception as error:
                raise AssertionError(f"{kind}, {name}, draw {draw}") from error
    assert found["refused"] > len(read)
    assert sum(found.values()) == DRAWS * len(read)


@pytest.mark.parametrize("kind", ARTEFACTS)
def test_a_sound_folder_loads(kind, sound, tmp_path):
    copy = Path(shutil.copytree(sound(kind), tmp_path / "copy"))
    ARTEFACTS[kind].seal(copy)
    assert outcome(lambda: ARTEFACTS[kind].load(copy), copy) == "loaded"


GIANTS = {
    "classes": {"num_classes": 10**9},
    "layers": {"name": "vision_transformer/small_vit", "options": {"depth": 10**9}},
    "more layers": {"name": "vision_transformer/small_vit", "options": {"depth": 60_000}},
    "width": {"name": "timm/test_vit", "options": {"embed_dim": 10**6, "num_heads": 1}},
    "image": {"name": "vision_transformer/small_vit", "image_size": 10**6},
    "stem": {"name": "torchvision/regnet_y_400mf", "options": {"stem_width": 10**7}},
    "hub": {"name": "timm/hf-hub:someone/model"},
    "folder": {"name": "timm/local-dir:/tmp"},
    "checkpoint": {"name": "timm/test_vit", "options": {"checkpoint_path": "/etc/passwd"}},
    "code": {"name": "timm/test_vit", "options": {"norm_layer": "os.system"}},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", GIANTS)
def test_a_run_that_describes_another_network_than_its_weights_costs_nothing(name, sound, tmp_path):
    hostile = Path(shutil.copytree(sound("vision run"), tmp_path / "in"))
    path = hostile / "model.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"spec": values["spec"] | GIANTS[name]}))
    assert outcome(lambda: ARTEFACTS["vision run"].load(hostile), hostile) == "refused"


@pytest.mark.parametrize("file", ["model.safetensors", "examples.safetensors", "adapter/adapter_model.safetensors"])
def test_a_header_of_100_mb_is_not_parsed(file, sound, tmp_path):
    hostile = Path(shutil.copytree(sound("vision run"), tmp_path / "in"))
    entry = b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},'
    text = b"{" + b"".join(entry % number for number in range(1_700_000))[:-1] + b"}"
    (hostile / file).write_bytes(struct.pack("<Q", len(text)) + text)
    assert outcome(lambda: ARTEFACTS["vision run"].load(hostile), hostile) == "refused"


@pytest.mark.parametrize("kind", ARTEFACTS)
def test_links_are_never_written_through_and_leave_a_sound_folder_sound(kind, sound, tmp_path):
    """Every file as a link to one elsewhere: reading may follow it or refuse it, and changes nothing there."""
    hostile = Path(shutil.copytree(sound(kind), tmp_path / "room" / "in"))
    for path in [path for path in hostile.rglob("*") if path.is_file()]:
        away = tmp_path / "room" / "away" / path.relative_to(hostile)
        away.parent.mkdir(parents=True, exist_ok=True)
        path.rename(away)
        path.symlink_to(away)
    found = outcome(lambda: ARTEFACTS[kind].load(hostile), hostile)
    assert found == "refused" or kind not in ("adapter", "stock adapter", "store", "bundle", "bundle of tasks")
