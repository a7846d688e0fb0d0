"""One base graph answers for every task as its own PyTorch model does; gates that fail leave nothing."""

import json
import shutil
from collections import Counter

import numpy as np
import onnx
import pytest
import torch

from deploy import BundleRunner
from deploy.bundle_files import MANIFEST
from deploy.multi import export_multi
from deploy.multi.adapter_file import read_adapter
from deploy.multi.graph import BASE_KEY
from deploy.multi.inputs import arrays_of, same_forms, tensors_of
from deploy.multi.parity import randomised_task
from deploy.parity import BATCHES, TOLERANCE
from deploy.session import open_session
from imu_saga.trained import RESULTS, load_run
from shared_peft import get_peft_model
from shared_peft.errors import ConfigError, ExportError
from shared_peft.inject import adapter_layers
from shared_peft.method import make_config
from tests.deploy.multi.conftest import CONV_TASKS, RUNS, conv_task
from tests.deploy.toys import SequenceNet, trained_toy


def pytorch(task, inputs):
    with torch.no_grad():
        return task.trained.model(inputs).numpy()


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("batch", BATCHES)
def test_every_task_answers_as_its_own_run_does(imu, runs, name, batch):
    run = load_run(runs[name])
    inputs = torch.randn(batch, *run.input_shape, generator=torch.Generator().manual_seed(batch)) * 3
    with torch.no_grad():
        expected = run.model(inputs).numpy()
    runner = BundleRunner(imu.folder, threads=1)
    runner.set_adapter(name)
    np.testing.assert_allclose(runner.logits(inputs.numpy()), expected, rtol=0, atol=TOLERANCE)
    assert runner.classes == run.classes


@pytest.mark.parametrize("name", CONV_TASKS)
@pytest.mark.parametrize("batch", [*BATCHES, 32])
def test_convolutions_of_any_rank_and_class_count_answer_like_pytorch(conv, name, batch):
    inputs = torch.randn(batch, 3, 12, 12, generator=torch.Generator().manual_seed(batch))
    runner = BundleRunner(conv.folder, threads=1)
    runner.set_adapter(name)
    got = runner.logits(inputs.numpy())
    assert got.shape == (batch, CONV_TASKS[name][1])
    np.testing.assert_allclose(got, pytorch(conv.tasks[name], inputs), rtol=0, atol=TOLERANCE)


def test_tasks_differ_and_switching_back_gives_the_same_bits(imu):
    runner = BundleRunner(imu.folder, threads=1)
    inputs = imu.tasks["user"].trained.examples.numpy()
    before = {}
    for name in runner.tasks:
        runner.set_adapter(name)
        before[name] = runner.logits(inputs)
    assert before["user"].shape[1] == 4
    assert np.abs(before["activity"] - before["plain"]).max() > 100 * TOLERANCE
    for name in (*runner.tasks[::-1], *runner.tasks) * 20:
        runner.set_adapter(name)
        np.testing.assert_array_equal(runner.logits(inputs), before[name])


def test_base_hash_is_that_of_every_runs_results_and_of_the_graphs_metadata(imu, runs):
    recorded = {json.loads((path / RESULTS).read_text())["details"]["base_sha256"] for path in runs.values()}
    graph = onnx.load(imu.folder / "model.onnx")
    assert recorded == {imu.mark} == {BundleRunner(imu.folder).manifest.base_sha256}
    assert {each.key: each.value for each in graph.metadata_props} == {BASE_KEY: imu.mark}


def test_adapter_tensors_are_optional_inputs_and_every_adapter_fits_them(imu):
    session = open_session(imu.folder / "model.onnx", threads=1)
    optional = {item.name for item in session.get_overridable_initializers()}
    assert [item.name for item in session.get_inputs()] == ["window"]
    held = {name: set(read_adapter(imu.folder / f"{name}.onnx_adapter", imu.mark)) for name in RUNS}
    assert held["activity"] | held["user"] == optional
    own = {"standardise.mean", "standardise.deviation", "head.weight", "head.bias"}
    assert held["plain"] == own < held["activity"]


def test_without_an_adapter_the_graph_is_the_base_and_has_no_head(conv):
    session = open_session(conv.folder / "model.onnx", threads=1)
    inputs = conv.tasks["small"].trained.examples
    np.testing.assert_array_equal(session.run(None, {"image": inputs.numpy()})[0], np.zeros((len(inputs), 1)))
    head = {f"head.{name}": np.float32(t.numpy()) for name, t in conv.tasks["small"].plain().head.state_dict().items()}
    with torch.no_grad():
        bare = conv.tasks["small"].plain()(inputs).numpy()
    np.testing.assert_allclose(session.run(None, {"image": inputs.numpy(), **head})[0], bare, rtol=0, atol=1e-6)


def test_flora_runs_as_three_small_convolutions_and_nothing_is_reshaped(conv):
    graph = onnx.load(conv.folder / "model.onnx").graph
    found = Counter(node.op_type for node in graph.node)
    dense, pointwise, base = 1, 1, 4
    assert found["Conv"] == base + 3 * dense + 2 * pointwise
    changed = ("depthwise", "stem")  # in their weights
    beside = {n.op_type for n in graph.node if not any(name in "".join(n.input) for name in changed)}
    assert not {"Expand", "Shape", "Transpose"} & beside
    read = {name for node in graph.node for name in node.input}
    assert all(each.name in read for each in graph.initializer)


def test_adapter_holds_its_own_rank_and_not_the_largest(conv):
    for name, (rank, classes) in CONV_TASKS.items():
        held = read_adapter(conv.folder / f"{name}.onnx_adapter", conv.mark)
        assert held["dense.weight.core"].shape == (rank, rank, 3, 3)
        assert held["dense.weight.in_factor"].shape == (rank, 8, 1, 1)
        assert held["stem.0.weight.core"].shape == (rank, 3, 3, 3)
        assert held["head.weight"].shape == (classes, 8)
        assert held["head.bias"].shape == (classes,)


def test_fused_attention_and_mixed_methods_answer_like_pytorch(tmp_path):
    def task(name, method, **fields):
        torch.manual_seed(5)
        base = SequenceNet()
        config = make_config(method, exclude_modules=["head"], modules_to_save=["head"], **fields)
        model = get_peft_model(base, config, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
        from deploy.multi import Task

        return Task(name, trained_toy(model, SequenceNet), ("head",))

    tasks = [task("lora", "lora", r=1), task("flora", "flora", r=3), task("some", "lora", r=2, target_modules=["stem"])]
    export_multi("cd" * 32, tasks, tmp_path / "bundle")
    runner = BundleRunner(tmp_path / "bundle", threads=1)
    for each in tasks:
        runner.set_adapter(each.name)
        inputs = each.trained.examples
        np.testing.assert_allclose(runner.logits(inputs.numpy()), pytorch(each, inputs), rtol=0, atol=TOLERANCE)


def test_no_file_tells_of_the_machine_and_there_is_one_graph(imu, runs):
    names = {"README.md", "SHA256SUMS", "golden.safetensors", "manifest.json", "model.onnx", "parity.json"}
    assert {path.name for path in imu.folder.iterdir()} == names | {f"{name}.onnx_adapter" for name in RUNS}
    for path in imu.folder.iterdir():
        assert str(runs["user"].parent).encode() not in path.read_bytes()


def test_loading_and_switching_writes_no_warning(imu, capfd):
    runner = BundleRunner(imu.folder)
    runner.set_adapter("user")
    runner.predict(imu.tasks["user"].trained.examples.numpy())
    assert capfd.readouterr() == ("", "")


def test_randomised_twin_changes_every_parameter_of_the_task_and_none_of_the_base(imu):
    task = imu.tasks["activity"]
    twin = randomised_task(task, seed=1)
    before, after = (arrays_of(same_forms({"one": tensors_of(each)})["one"], {}) for each in (task, twin))
    same = {name for name in before if np.array_equal(before[name], after[name])}
    assert same == {"standardise.mean", "standardise.deviation"}
    assert all(torch.equal(tensor, twin.base_tensors()[name]) for name, tensor in task.base_tensors().items())


@pytest.fixture
def known_base(monkeypatch, conv):
    """Take the base graph of the finished bundle, so that a gate can be tested quickly."""
    from deploy.multi.graph import WrittenGraph

    def copy(path, tasks, base_sha256, opset):
        shutil.copyfile(conv.folder / "model.onnx", path)
        return WrittenGraph(opset, 1, (), {})

    monkeypatch.setattr("deploy.multi.bundle.write_base", copy)


def test_gate_that_fails_names_task_and_number_and_leaves_no_bundle(known_base, monkeypatch, conv, tmp_path):
    def bent(tensors, factors):
        arrays = arrays_of(tensors, factors)
        name = next(name for name in arrays if name.endswith("out_factor"))
        return {**arrays, name: arrays[name] * 1.5}

    monkeypatch.setattr("deploy.multi.parity.arrays_of", bent)
    message = r"task small, parity gate, trained weights, batch 1: max \|difference\| .* at most 0.0001, got 0\.\d+"
    with pytest.raises(ExportError, match=message):
        export_multi(conv.mark, list(conv.tasks.values()), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_method_that_is_no_chain_is_refused(tmp_path):
    with pytest.raises(
        ExportError, match="task odd, layer stem.0: its change must be one chain of small maps.*got dora"
    ):
        export_multi("0" * 64, [conv_task("odd", 2, 3, method="dora")], tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_tasks_that_are_not_fed_alike_are_refused(conv, tmp_path):
    import dataclasses

    small, large = conv.tasks.values()
    fed = dataclasses.replace(large.trained, preprocessing={"image_size": 24})
    with pytest.raises(ConfigError, match="task large: must be fed as task small"):
        export_multi("0" * 64, [small, dataclasses.replace(large, trained=fed)], tmp_path / "bundle")


def test_heads_that_differ_in_more_than_their_classes_are_refused():
    from deploy.multi.inputs import TaskTensors, own_inputs

    own = {"standardise.mean": torch.zeros(8), "head.weight": torch.zeros(3, 8)}
    wider = {"standardise.mean": torch.zeros(9), "head.weight": torch.zeros(4, 9)}
    tasks = {"one": TaskTensors({}, own), "two": TaskTensors({}, wider)}
    with pytest.raises(ExportError, match=r"task two: .*task one's.*others for head.weight, standardise.mean"):
        own_inputs(tasks, {"one": 3, "two": 4}, ("head",))


def test_card_and_manifest_name_every_task(imu):
    card = (imu.folder / "README.md").read_text()
    manifest = json.loads((imu.folder / MANIFEST).read_text())
    assert {name: task["method"] for name, task in manifest["tasks"].items()} == {n: r[0] for n, r in RUNS.items()}
    for name, task in imu.tasks.items():
        assert manifest["tasks"][name]["classes"] == list(task.trained.classes)
        assert f"## Task {name}" in card
        assert manifest["tasks"][name]["parity"]["max_abs_difference_randomised"] <= TOLERANCE
    assert manifest["tasks"]["user"]["parity"]["top1_agreement"] == 1.0


def test_every_layer_a_task_adapts_has_its_factors_in_the_file(imu):
    task = imu.tasks["activity"]
    held = read_adapter(imu.folder / "activity.onnx_adapter", imu.mark)
    layers = [name for name, _ in adapter_layers(task.module)]
    assert {name.removesuffix(".weight.core") for name in held if name.endswith(".core")} == set(layers)
    for name in layers:  # LoRA-TSD: its rank and its directions together
        factors = next(layer for found, layer in adapter_layers(task.module) if found == name)
        chain = factors.changes(factors.active).factors()
        assert chain.core.shape[0] in held[f"{name}.weight.core"].shape
