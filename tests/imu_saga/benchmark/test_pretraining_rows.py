"""The comparison of pre-training weights is the benchmark's engine with fixed rows."""

import dataclasses

import numpy as np
import pytest

from imu_saga.benchmark.engine import draw_labels
from imu_saga.benchmark.pretraining_rows import ProtocolConfig, run_protocol
from imu_saga.benchmark.sides import Sides
from imu_saga.benchmark.starts import Starts
from imu_saga.evaluation.scores import score_model
from imu_saga.finetune import FinetuneConfig, finetune
from imu_saga.pretrain import PretrainConfig
from imu_saga.search import SearchConfig
from shared_peft.errors import UnknownNameError
from shared_peft.training import RunFolder
from tests.imu_saga.planted import people

SMALL = {"width": 16, "depth": 1, "heads": 2}


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    windows = people(subjects=6, each=12)
    noise = np.random.default_rng(0).normal(0, 2, windows.x.shape).astype(np.float32)
    windows = dataclasses.replace(windows, x=windows.x + noise)  # hard, so that rows differ
    test = np.isin(windows.subjects, ["p0", "p1", "p2"])
    sides = Sides(windows.subset(~test), windows.subset(~test), windows.subset(test))
    config = ProtocolConfig(
        shots=(4,),
        seeds=1,
        pretraining=PretrainConfig(steps=8, batch_size=16, options=SMALL),
        finetuning=FinetuneConfig(steps=8, batch_size=12, r=2),
        search=SearchConfig(trials=1, shots=4, finetune_steps=3),
        starts=("span", "only point", "without point", "equal", "searched"),
        methods=("discriminant", "full", "lora"),
        baselines=("majority", "scratch"),
    )
    folder = RunFolder.create(tmp_path_factory.mktemp("c") / "run", "imu_saga.compare", {})
    return sides, config, folder, run_protocol(sides, config, folder)


def test_rows_are_baselines_and_every_method_from_every_start_in_order(compared):
    _, config, _, records = compared
    names = [f"{start}, {method}" for start in config.starts for method in config.methods]
    assert [record["row"] for record in records] == ["majority", "scratch", *names]
    assert len({str(record["confusion"]) for record in records}) > len(records) // 2


def test_recipes_say_what_is_hidden_and_what_is_told(compared):
    _, config, folder, _ = compared

    def described(name):
        return RunFolder(folder.path / f"pretrain_{name}" / "0").describe("imu_saga.pretrain")["config"]

    assert described("span")["augment"] == {}
    assert described("span")["objective"] == "rebuild"
    assert described("span")["weights"] == described("only_point")["weights"] == {"point": 1.0}
    assert described("only_point")["objective"] == "statistics"
    assert sorted(described("without_point")["weights"]) == ["period", "sensor", "sub_period"]
    with pytest.raises(UnknownNameError, match="one of span, rebuild, equal, only .*without sub_period, searched, got"):
        Starts(folder.path, config.pretraining, config.search).by_recipe("equals", None)


@pytest.mark.parametrize(
    ("row", "method", "start"),
    [
        ("scratch", "scratch", None),
        ("only point, full", "full", "only_point"),
        ("equal, full", "full", "equal"),
        ("equal, discriminant", "discriminant", "equal"),
    ],
)
def test_a_row_is_the_fine_tuning_it_says_on_the_labels_of_its_seed(compared, row, method, start):
    sides, config, folder, records = compared
    tuning = dataclasses.replace(config.finetuning, method=method, seed=0)
    checkpoint = folder.path / f"pretrain_{start}" / sides.name if start else None
    _, model = finetune(draw_labels(sides.train, 4, 0), tuning, checkpoint=checkpoint)
    expected = score_model(model, sides.test)
    found = next(record for record in records if record["row"] == row)
    assert found["macro_f1"] == expected.macro_f1
    assert found["confusion"] == expected.confusion


def test_pretraining_and_search_keep_to_the_training_people(compared):
    sides, _, folder, records = compared
    assert set(np.unique(sides.test.subjects)) == set(records[0]["subjects"])
    assert not set(sides.unlabelled.subjects) & set(sides.test.subjects)
    assert (folder.path / "search" / "0" / "best.json").is_file()
