"""Window stores: what is written is read back, from any rows, within a bound."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imu_saga.pretrain import EQUAL_WEIGHTS, PretrainConfig, mask_batches, pretrain
from imu_saga.source import DataOptions
from imu_saga.store.convert import convert
from imu_saga.store.files import StoreFiles
from imu_saga.store.split import options_of, split_store
from imu_saga.store.store import WindowStore
from imu_saga.store.writer import store_writer
from imu_saga.window_source import WindowSource
from shared_peft.errors import DataError
from tests.imu_saga.planted import people
from tests.imu_saga.store.stored import OPTIONS, POPULATION, assert_same, card_for, written


def test_windows_come_back_as_they_were(store, windows):
    assert [shard.windows for shard in store.card.shards] == [50, 50, 50, 30]
    assert_same(store.window_set(np.arange(len(windows))), windows)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_rows_of_any_view_are_those_of_the_windows(store, windows, data):
    rows = np.asarray(data.draw(st.lists(st.integers(0, len(windows) - 1), min_size=1, max_size=30)))
    again = np.asarray(data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=30)), dtype=np.int64)
    x, valid = store.subset(rows).batch(again)
    np.testing.assert_array_equal(x, windows.x[rows][again])
    np.testing.assert_array_equal(valid, windows.valid[rows][again])
    assert (x.dtype, valid.dtype) == (np.float32, np.bool_)
    assert_same(store.subset(rows).window_set(again), windows.subset(rows).subset(again))


def test_a_view_leaves_people_out_without_reading_or_copying_windows(store, windows, monkeypatch):
    def refuse(*_):
        raise AssertionError("x was read")

    monkeypatch.setattr(StoreFiles, "take", refuse)
    kept = ~np.isin(store.subjects, ["p1", "p3"])
    view = store.subset(kept)
    assert view.files is store.files
    assert view.x.shape == (int(kept.sum()), 41, 6)
    np.testing.assert_array_equal(view.subjects, windows.subjects[kept])
    np.testing.assert_array_equal(view.labels, windows.labels[kept])
    with pytest.raises(DataError, match=r"rows: must be in \[0, 108\), got 0 to 108"):
        view.subset(np.array([0, 108]))


def test_pretraining_takes_windows_from_memory_or_disk_alike(store, windows):
    sources: list[WindowSource] = [store, windows]
    config = PretrainConfig(steps=3, batch_size=16, options={"width": 16, "depth": 1, "heads": 2})
    for mixing in ("draw", "sum"):
        batches = [mask_batches(s, EQUAL_WEIGHTS, dataclasses.replace(config, mixing=mixing))(7) for s in sources]
        assert all(torch.equal(one, other) for one, other in zip(*batches, strict=True))
    (one, _), (other, _) = (pretrain(source, config, progress=None) for source in sources)
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.floats(-8, 4.8))
def test_float16_errs_by_half_its_last_bit_at_most(tmp_path_factory, seed, decade):
    rng = np.random.default_rng(seed)
    base = people(subjects=1, each=1)
    x = (rng.uniform(-1, 1, base.x.shape) * 10**decade).astype(np.float32)
    stored = written(tmp_path_factory.mktemp("h") / "s", dataclasses.replace(base, x=x), dtype="float16")
    error = np.abs(stored.batch(np.arange(len(x)))[0].astype(np.float64) - x)
    assert (error <= np.maximum(np.abs(x) * 2.0**-11, 2.0**-25)).all()


def test_gravity_keeps_eight_bits_behind_the_point_and_what_float16_cannot_hold_is_refused(tmp_path):
    base = people(subjects=1, each=1)
    still = dataclasses.replace(base, x=np.full_like(base.x, 9.80665))
    found = written(tmp_path / "still", still, dtype="float16").batch(np.arange(3))[0]
    assert 0 < np.abs(found.astype(np.float64) - 9.80665).max() <= 2.0**-8
    large = base.x.copy()
    large[1, 2, 3] = 65505.0
    with pytest.raises(DataError, match=r"p0_1, gyro_x: must be at most 65504 to fit float16, got 65505.*float32"):
        written(tmp_path / "large", dataclasses.replace(base, x=large), dtype="float16")
    kept = written(tmp_path / "kept", dataclasses.replace(base, x=large)).batch(np.arange(3))[0]
    np.testing.assert_array_equal(kept, large)


@pytest.mark.parametrize("protocol", ["subject", "leave_placement_out", "leave_one_subject_out"])
def test_a_store_is_split_by_whole_sessions_as_its_windows_are(protocol, tmp_path):
    from imu_saga.source import load_split

    both = POPULATION.replace('"subjects": 4', '"subjects": 6, "placements": ["waist", "wrist"]')
    options = dataclasses.replace(OPTIONS, data_options=(both,))
    convert(options, tmp_path / "s", dtype="float32")
    store = WindowStore.open(tmp_path / "s")
    chosen = dataclasses.replace(DataOptions(), protocol=protocol, split_seed=3)
    split = split_store(store, chosen)
    train, test = store.subset(split.train), store.subset(split.test)
    expected = load_split(dataclasses.replace(options, protocol=protocol, split_seed=3), unlabelled=True)
    assert options_of(store, chosen) == dataclasses.replace(options, protocol=protocol, split_seed=3)
    assert split.held_out == expected.split.held_out
    assert len(train) == len(expected.split.train) > 0
    np.testing.assert_array_equal(train.start_s, expected.windows.start_s[expected.split.train])
    np.testing.assert_array_equal(train.sessions, expected.windows.sessions[expected.split.train])
    assert set(test.sessions) == set(expected.windows.sessions[expected.split.test])


SAMPLING = """
import sys
from pathlib import Path
from imu_saga.store.store import WindowStore
from shared_peft.training import epoch_order
store = WindowStore.open(Path(sys.argv[1]))
def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) << 10
before = resident()
for index in range(len(store) // 128):
    store.batch(epoch_order(len(store), 128, index, 0).numpy())
print(resident() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_an_epoch_over_a_store_takes_little_memory_and_nothing_that_grows_with_it(tmp_path):
    base = people(subjects=1, each=100, samples=120)
    block = base.subset(np.resize(np.arange(len(base)), 20_000))
    with store_writer(tmp_path / "s", card_for(block), shard_windows=10_000) as writer:
        for _ in range(2):
            writer.append(block)
        writer.finish()
    assert sum(path.stat().st_size for path in (tmp_path / "s").iterdir()) > 115e6
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-c", SAMPLING, str(tmp_path / "s")]
    done = subprocess.run(
        arguments, cwd=Path(__file__).parents[3], env=environment, check=True, capture_output=True, text=True
    )
    assert int(done.stdout) < 16e6
