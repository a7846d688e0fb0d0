"""What bench says is what was planted: times, shares, memory, coverage; its command writes table and picture."""

import json
import time
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from deploy import BundleRunner, load_manifest
from deploy.bench import latency
from deploy.bench.coverage import coverage
from deploy.bench.operators import operator_shares, shares_of
from deploy.bench.probe import probe
from deploy.bench.unadapted import export_unadapted
from deploy.commands import COMMANDS
from deploy.golden import GoldenSample
from deploy.model_files import ModelFile, model_files
from deploy.preprocess import in_graph
from shared_peft.command import run_commands
from shared_peft.errors import ExportError
from tests.deploy.toys import ConvNet, trained_toy


def planted(folder, nodes, weights=(), shape=(4,)):
    """Return a file of a graph from x to y."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("batch", *shape)) for name in ("x", "y")]
    initializers = [numpy_helper.from_array(array, name) for name, array in weights]
    graph = helper.make_graph(nodes, "planted", value[:1], value[1:], initializers)
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    rows = np.ones((2, *shape), np.float32)
    return ModelFile(folder, path, "x", "y", GoldenSample(rows, rows))


def chain(*operators):
    names = ["x", *(f"v{index}" for index in range(len(operators) - 1)), "y"]
    return [helper.make_node(name, names[i : i + 1], names[i + 1 : i + 2]) for i, name in enumerate(operators)]


def test_accelerators_take_the_nodes_they_know_in_as_many_pieces_as_the_others_leave(tmp_path):
    found = coverage(planted(tmp_path, chain("Relu", "Hardmax", "Tanh", "Relu", "Hardmax", "Relu")))
    for name in ("NNAPI", "CoreML NeuralNetwork", "CoreML MLProgram"):
        assert (found[name].partitions, found[name].share, found[name].missing) == (3, 4 / 6, ("Hardmax",))
    assert found["XNNPACK"].share == 0.0


def test_a_graph_that_is_known_throughout_is_one_piece(tmp_path):
    weights = [("w", np.eye(4, dtype=np.float32)), ("b", np.zeros(4, np.float32))]
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    found = coverage(planted(tmp_path, nodes, weights))
    assert {(each.partitions, each.share) for name, each in found.items() if name != "XNNPACK"} == {(1, 1.0)}
    assert (found["XNNPACK"].share, found["XNNPACK"].missing) == (0.5, ("Relu",))


def test_a_file_that_is_no_onnx_has_no_coverage(tmp_path):
    (tmp_path / "model.ort").write_bytes(b"")
    rows = np.ones((1, 4), np.float32)
    assert coverage(ModelFile(tmp_path, tmp_path / "model.ort", "x", "y", GoldenSample(rows, rows))) == {}


def test_memory_of_a_model_grows_by_its_weights(tmp_path):
    small = probe(planted(tmp_path, chain("Relu")))
    size = 3000
    weights = [("w", np.random.default_rng(0).normal(size=(size, size)).astype(np.float32))]
    large = probe(planted(tmp_path, [helper.make_node("MatMul", ["x", "w"], ["y"])], weights, shape=(size,)))
    assert large.model_mib - small.model_mib >= 4 * size**2 / 2**20
    assert large.load_ms > small.load_ms > 0
    assert large.peak_mib > large.model_mib


def test_a_file_that_does_not_run_in_a_fresh_process_is_an_error(tmp_path):
    file = planted(tmp_path, chain("Relu"))
    file.path.write_bytes(b"no model")
    with pytest.raises(ExportError, match=r"model\.onnx: must run in a fresh process, got status 1"):
        probe(file)


def test_shares_are_the_median_times_of_nodes_added_up_by_operator():
    def event(operator, node, duration):
        return {"name": "n_kernel_time", "dur": duration, "args": {"op_name": operator, "node_index": node}}

    runs = [[event("Gemm", "0", 900), event("Relu", "1", 7), event("Gemm", "2", 1)]]  # the first run is left out
    runs += [[event("Gemm", "0", gemm), event("Relu", "1", 2), event("Gemm", "2", 1)] for gemm in (5, 5, 5000)]
    events = [{"name": "n_fence_before", "dur": 99}, *(each for run in runs for each in run)]
    assert shares_of(events, skipped=1) == {"Gemm": 6 / 8, "Relu": 2 / 8}


def test_operators_of_a_bundle_are_those_of_its_graph_and_their_shares_add_up(bundle_of):
    (file, *_) = model_files(bundle_of("sequence", "lora_tsd")[1])
    found = operator_shares(file)
    assert sum(found.values()) == pytest.approx(1.0)
    assert {"LayerNormalization", "Softmax", "Conv"} <= found.keys()
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_files_take_turns_and_their_own_time_is_found(monkeypatch):
    order = []

    def opened(file, *, threads):
        def call():
            order.append(file)
            time.sleep({"slow": 0.02, "fast": 0.002}[file])

        return call

    monkeypatch.setattr(latency, "open_call", opened)
    slow, fast = latency.latencies(["slow", "fast"], 1, rounds=8)
    assert order[-16:] == ["slow", "fast", "fast", "slow"] * 4
    assert 20 <= slow.median_ms <= slow.p95_ms
    assert 2 <= fast.median_ms < slow.median_ms


def test_command_measures_every_file_and_the_base_without_an_adapter(bundle_of, conv_tasks_bundle, tmp_path, capsys):
    single, out = bundle_of()[1], tmp_path / "out"
    arguments = ["bench", str(conv_tasks_bundle), "--beside", str(single), "--rounds", "5", "--out", str(out)]
    assert run_commands("deploy", COMMANDS, arguments) == 0
    rows = json.loads((out / "bench.json").read_text())
    tasks = ["model.onnx, no adapter", "model.onnx, task small", "model.onnx, task large"]
    assert [row["file"] for row in rows] == [*tasks, *(file.name for file in model_files(single))]
    said = capsys.readouterr().out
    assert all(said.count(f"| multi | {name} |") == 3 for name in tasks)
    sizes = [(conv_tasks_bundle / name).stat().st_size for name in ("model.onnx", "small.onnx_adapter")]
    assert [row["size_mb"] for row in rows[:2]] == [sizes[0] / 1e6, sum(sizes) / 1e6]
    for row in rows:
        assert [each["threads"] for each in row["latency"]] == [1, 2]
        assert all(0 < each["median_ms"] <= each["p95_ms"] for each in row["latency"])
    assert (out / "bench.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.filterwarnings("ignore:mpc_n runs beside dense layers only:UserWarning")
def test_model_without_its_adapter_is_exported_from_the_run_and_measured_beside(
    bundle_of, tmp_path, monkeypatch, capsys
):
    trained, bundle = bundle_of("conv", "mpc_n")
    monkeypatch.setattr("deploy.bench.unadapted.load_trained", lambda path: trained)
    written = tmp_path / "unadapted"
    export_unadapted(tmp_path, bundle, written)
    with torch.no_grad(), trained.model.disable_adapter():
        expected = trained.model(trained.examples).numpy()
    found = BundleRunner(written).logits(trained.examples.numpy())
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert load_manifest(written).nodes < load_manifest(bundle).nodes
    out = tmp_path / "out"
    arguments = ["bench", str(bundle), "--run", str(tmp_path), "--rounds", "3", "--out", str(out)]
    assert run_commands("deploy", COMMANDS, arguments) == 0
    rows = json.loads((out / "bench.json").read_text())
    assert [(row["bundle"], row["file"]) for row in rows][-1] == ("unadapted", "model.onnx")
    assert "| unadapted | model.onnx |" in capsys.readouterr().out


def test_run_without_an_adapter_has_no_unadapted_model(bundle_of, tmp_path, monkeypatch):
    monkeypatch.setattr("deploy.bench.unadapted.load_trained", lambda path: trained_toy(ConvNet(), ConvNet))
    with pytest.raises(ExportError, match="must have an adapter, or there is nothing to leave out, got ConvNet"):
        export_unadapted(tmp_path, bundle_of()[1], tmp_path / "out")


def test_unadapted_model_takes_the_units_that_its_bundle_takes(bundle_of, tmp_path, monkeypatch):
    trained = bundle_of("sequence", "lora_tsd")[0]
    names, units = ("acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z"), ["m/s^2"] * 3 + ["rad/s"] * 3
    steps = {"rate_hz": 20.0, "seconds": 1.2, "samples": 24, "channels": list(names), "units": units, "gravity": "kept"}
    run = replace(trained, preprocessing=steps)
    monkeypatch.setattr("deploy.bench.unadapted.load_trained", lambda path: run)
    (tmp_path / "bundle").mkdir()
    inside = in_graph(run, ["acc=g", "gyro=deg/s"]).preprocessing
    (tmp_path / "bundle" / "manifest.json").write_text(json.dumps({"preprocessing": inside}))
    export_unadapted(tmp_path, tmp_path / "bundle", tmp_path / "out")
    assert load_manifest(tmp_path / "out").preprocessing == inside
