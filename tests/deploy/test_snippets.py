"""Every language's snippet says what the manifest says, whatever characters its names hold."""

import dataclasses
import json
import re

import pytest

from deploy import load_manifest
from deploy.snippets import SNIPPETS, write_snippets
from vision.backbones.family import DataConfig
from vision.transforms import describe_preprocessing

ODD = ('a "b" $c', "back\\slash", "new\nline */ import evil", "café 走 \U0001f6b6", "line\u2028end")
UNESCAPE = {
    "javascript": json.loads,
    "kotlin": json.loads,
    "swift": lambda text: re.sub(r"\\u\{(\w+)\}", lambda found: chr(int(found[1], 16)), text[1:-1]),
}


@pytest.fixture
def manifest(bundle_of):
    """A manifest of an image model with normalisation, and class names that are hard to write."""
    data = DataConfig(12, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bicubic", 0.9)
    steps = {**describe_preprocessing(data), "note": "first\nsecond */ import evil"}
    return dataclasses.replace(load_manifest(bundle_of()[1]), classes=ODD, preprocessing=steps)


@pytest.mark.parametrize("language", SNIPPETS.names())
def test_literals_of_a_snippet_are_the_class_names_again(manifest, language):
    text = SNIPPETS.get(language)().text(manifest)
    (line,) = re.findall(r"(?:CLASSES|classes: \[String\]) = (.*)", text)
    literals = re.findall(r'"(?:[^"\\]|\\.)*"', line)
    assert tuple(UNESCAPE[language](literal) for literal in literals) == ODD


@pytest.mark.parametrize("language", SNIPPETS.names())
def test_a_snippet_names_file_input_shape_and_numbers_of_preprocessing(manifest, language):
    text = SNIPPETS.get(language)().text(manifest)
    for expected in ('"model.onnx"', '"image"', '"logits"', "1, 3, 12, 12", "432", "0.1, 0.2, 0.3", repr(1 / 255)):
        assert expected in text
    for name, value in manifest.preprocessing.items():
        assert name == "note" or f"//   {name}: {value}" in text
    assert "@" not in text


@pytest.mark.parametrize("language", SNIPPETS.names())
def test_no_value_of_the_manifest_breaks_out_of_the_comment(manifest, language):
    lines = SNIPPETS.get(language)().text(manifest).splitlines()
    assert [line for line in lines if "evil" in line and not line.startswith("//")] == [
        line for line in lines if "evil" in line and '"' in line
    ]
    assert all(len(line) <= 113 for line in lines if line.startswith("//   "))


@pytest.mark.parametrize("language", ["kotlin", "swift"])
def test_languages_no_compiler_has_seen_say_so(manifest, language):
    text = SNIPPETS.get(language)().text(manifest)
    assert "Not compiled here" in text
    for pair in ("{}", "()", "[]"):
        code = re.sub(r'"(?:[^"\\]|\\.)*"', "", text)
        assert code.count(pair[0]) == code.count(pair[1])


def test_snippets_are_written_beside_the_model_by_their_file_names(manifest, tmp_path):
    assert set(write_snippets(tmp_path, manifest)) == {"snippet.kt", "snippet.swift", "snippet.js"}
    assert {path.name for path in tmp_path.iterdir()} == {"snippet.kt", "snippet.swift", "snippet.js"}


def test_a_window_of_samples_is_fed_in_rows_with_its_rate_and_units(bundle_of):
    manifest = load_manifest(bundle_of("sequence", "lora_tsd")[1])
    texts = {name: snippet().text(manifest) for name, snippet in SNIPPETS.items()}
    assert "RATE_HZ = 20.0" in texts["kotlin"]
    assert "rateHz = 20.0" in texts["swift"]
    assert '"rate_hz": 20.0' in texts["javascript"]
    assert all(
        "inputOf" in text and "// Input window: float32, (1, 24, 6), 144 values." in text for text in texts.values()
    )
