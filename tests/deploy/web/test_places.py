"""Bundles answer alike on this CPU, in node, in a browser, in another Python; what is missing is skipped and said."""

import dataclasses
import os
import sys

import numpy as np
import pytest

from deploy.bundle_files import BundleError
from deploy.chromium import find_browser
from deploy.commands import COMMANDS
from deploy.model_files import model_files
from deploy.parity import TOLERANCE
from deploy.place import Engine, Place, PlaceOptions, Reply
from deploy.place_check import check_places
from deploy.places import PLACES
from shared_peft.command import run_commands
from shared_peft.errors import ExportError, UnknownNameError

ALIKE = 1e-5  # two processors, one model


@pytest.fixture
def emulator(tmp_path, monkeypatch):
    """Put a program in the emulator's place; return the root of the system it is said to run."""

    def make(script):
        root = tmp_path / "root"
        for name in ("usr/bin", "site/onnxruntime", "site/numpy"):
            (root / name).mkdir(parents=True)
        (root / "usr/bin/python3").write_text("")
        program = tmp_path / "bin" / "qemu-aarch64-static"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
        return root

    return make


@pytest.mark.parametrize("bundle", ["motion_bundle", "conv_tasks_bundle"])
def test_every_file_answers_alike_on_this_cpu_in_node_and_in_a_browser(node, web_runtime, request, bundle):
    if find_browser() is None:
        pytest.skip("no browser installed")
    folder = request.getfixturevalue(bundle)
    found = check_places(folder, ["cpu", "wasm"], PlaceOptions(web_runtime))
    names = [file.name for file in model_files(folder)]
    assert len(names) >= 2
    engines = ("this CPU", "WASM in node", "WASM in Chromium")
    assert [(each.engine, each.file) for each in found] == [(engine, name) for engine in engines for name in names]
    assert max(each.max_abs_difference for each in found) <= TOLERANCE
    assert max(each.to_cpu for each in found) <= ALIKE
    assert {each.to_cpu for each in found if each.engine == "this CPU"} == {0.0}
    assert all(each.milliseconds > 0 for each in found)


@pytest.mark.parametrize("bundle", ["motion_bundle", "conv_tasks_bundle"])
def test_another_python_answers_every_file_as_this_one(emulator, request, bundle):
    root = emulator(f'unset PYTHONHOME PYTHONPATH; shift 3; exec "{sys.executable}" "$@"')
    folder = request.getfixturevalue(bundle)
    found = check_places(folder, ["arm64"], PlaceOptions(arm64_root=root))
    assert [each.file for each in found] == [file.name for file in model_files(folder)]
    assert max(each.to_cpu for each in found) <= ALIKE


def test_a_process_that_aborts_is_an_error_that_names_the_file(emulator, motion_bundle):
    lines = []
    with pytest.raises(ExportError, match=r"aarch64 .*: model\.onnx must run, got status -6"):
        check_places(motion_bundle, ["arm64"], PlaceOptions(arm64_root=emulator("kill -ABRT $$")), report=lines.append)
    assert len(lines) == len(model_files(motion_bundle))


class Elsewhere(Place):
    """Answers as the golden sample says, but for a difference."""

    difference = 0.0

    def engines(self, options):
        def answer(file):
            return Reply(file.sample.logits + np.float32(self.difference))

        return [Engine("elsewhere", "", answer)]


@pytest.mark.parametrize(("difference", "refused"), [(0.9 * TOLERANCE, False), (1.2 * TOLERANCE, True), (np.nan, True)])
def test_answers_further_from_pytorch_than_the_tolerance_are_refused(monkeypatch, motion_bundle, difference, refused):
    monkeypatch.setitem(PLACES._entries, "elsewhere", Elsewhere)
    monkeypatch.setattr(Elsewhere, "difference", difference)
    if refused:
        with pytest.raises(BundleError, match=r"model\.onnx, elsewhere: logits must be within 0\.0001\d* of PyTorch's"):
            check_places(motion_bundle, ["elsewhere"])
    else:
        (first, *_) = check_places(motion_bundle, ["elsewhere"])
        assert first.max_abs_difference == pytest.approx(difference, rel=0.05)


def test_a_file_that_a_place_does_not_take_is_skipped_with_the_reason(monkeypatch, motion_bundle):
    answering = Elsewhere().engines(PlaceOptions())[0]
    picky = dataclasses.replace(answering, refusal=lambda file: "" if file.variant else "variants only")
    monkeypatch.setitem(PLACES._entries, "elsewhere", Elsewhere)
    monkeypatch.setattr(Elsewhere, "engines", lambda self, options: [picky])
    lines = []
    found = check_places(motion_bundle, ["elsewhere"], report=lines.append)
    assert found
    assert [each.file for each in found] == [file.name for file in model_files(motion_bundle) if file.variant]
    assert "elsewhere, model.onnx: skipped, variants only" in lines


def test_the_npu_does_not_take_ort_files(motion_bundle):
    (engine,) = PLACES.get("qnn")().engines(PlaceOptions())
    plain = model_files(motion_bundle)[0]
    assert engine.refusal(plain) == ""
    assert "reads .onnx files only" in engine.refusal(dataclasses.replace(plain, path=motion_bundle / "model.ort"))


def test_what_is_missing_is_skipped_with_the_reason(motion_bundle, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setitem(sys.modules, "onnxruntime_qnn", None)
    assert run_commands("deploy", COMMANDS, ["check", str(motion_bundle), "--on", "cpu,wasm,arm64,qnn"]) == 0
    said = capsys.readouterr().out
    for line in (
        "WASM in node: skipped, node is not installed",
        "WASM in Chromium: skipped, no browser is installed",
        "emulated): skipped, qemu-aarch64-static is not installed",
        "Qualcomm NPU (emulated): skipped, the package onnxruntime-qnn is not installed",
    ):
        assert line in said


def test_arm64_without_a_root_or_with_an_empty_one_is_skipped(emulator, tmp_path, monkeypatch):
    emulator("true")
    monkeypatch.delenv("SAGA_PEFT_ARM64_ROOT", raising=False)
    place = PLACES.get("arm64")()
    assert "$SAGA_PEFT_ARM64_ROOT is not set" in place.engines(PlaceOptions())[0].missing
    monkeypatch.setenv("SAGA_PEFT_ARM64_ROOT", str(tmp_path))
    assert "has no usr/bin/python3, site/onnxruntime" in place.engines(PlaceOptions())[0].missing


def test_unknown_places_are_refused_with_the_known_ones(motion_bundle):
    with pytest.raises(UnknownNameError, match="place: name must be one of arm64, cpu, qnn, wasm, got 'tpu'"):
        check_places(motion_bundle, ["cpu", "tpu"])
