"""The comparison of pre-training weights is the benchmark's engine with fixed rows."""

import dataclasses

import numpy as np
import pytest

from imu_saga.benchmark.engine import draw_labels
from imu_saga.benchmark.pretraining_rows import ProtocolConfig, run_protocol
from imu_saga.benchmark.sides import Sides
from imu_saga.evaluation.scores import score_model
from imu_saga.finetune import FinetuneConfig, finetune
from imu_saga.pretrain import PretrainConfig
from imu_saga.search import SearchConfig
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
        methods=("head", "lora"),
        baselines=("majority",),
    )
    folder = RunFolder.create(tmp_path_factory.mktemp("c") / "run", "imu_saga.compare", {})
    return sides, config, folder, run_protocol(sides, config, folder)


def test_rows_are_baselines_scratch_weightings_and_methods_in_order(compared):
    assert len({str(record["confusion"]) for record in compared[3]}) == len(compared[3]), "rows differ"
    names = ["majority", "scratch", "point", "equal", "searched", "equal head", "equal lora"]
    assert [record["row"] for record in compared[3]] == names


@pytest.mark.parametrize(
    ("row", "method", "start"),
    [
        ("scratch", "scratch", None),
        ("point", "full", "point"),
        ("equal", "full", "equal"),
        ("equal head", "head", "equal"),
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
