"""Every protocol keeps apart what it says, for every task it suits; tasks label windows by what they tell apart."""

import numpy as np
import pytest

from imu_saga.protocols import PROTOCOLS, open_protocol
from imu_saga.source import DataOptions, split_protocol, without_unseen
from imu_saga.splits import SHOTS, few_shot, occasions, without_overlap
from imu_saga.tasks import TASKS
from shared_peft.config import to_json
from shared_peft.errors import ConfigError, DataError, UnknownNameError
from tests.imu_saga.worn import worn

WORLD = worn(datasets=("a", "b"), subjects=4, sessions=2, placements=("waist", "wrist"))
VALUES = {
    "subject": WORLD.subjects,
    "session": np.asarray([address.rpartition("/")[0] for address in WORLD.sessions.tolist()]),
    "placement": WORLD.placements,
    "dataset": WORLD.datasets,
}


@pytest.mark.parametrize("name", PROTOCOLS.names())
def test_every_fold_keeps_apart_what_its_protocol_names(name):
    protocol = open_protocol(name)
    folds = list(protocol.folds(WORLD))
    assert folds
    for split in folds:
        train, test = set(split.train.tolist()), set(split.test.tolist())
        assert train
        assert test
        assert not train & test
        for kind in protocol.apart:
            if kind in VALUES:
                assert not set(VALUES[kind][split.train]) & set(VALUES[kind][split.test]), kind
        if split.kind in VALUES:
            assert set(VALUES[split.kind][split.test]) == set(split.held_out)
    again = [split.test.tolist() for split in protocol.folds(WORLD)]
    assert [split.test.tolist() for split in folds] == again


@pytest.mark.parametrize("name", ["leave_one_subject_out", "group_k_fold", "leave_dataset_out", "leave_placement_out"])
def test_protocols_that_go_round_hold_every_name_out_once(name):
    folds = list(open_protocol(name).folds(WORLD))
    held = sorted(each for split in folds for each in split.held_out)
    assert held == sorted(set(VALUES[folds[0].kind].tolist()))


def test_a_placement_is_left_out_on_people_never_seen_unless_people_are_shared():
    for split in open_protocol("leave_placement_out").folds(WORLD):
        assert set(WORLD.placements[split.test]) == set(split.held_out)
        assert not set(WORLD.subjects[split.train]) & set(WORLD.subjects[split.test])
    shared = list(open_protocol("leave_placement_out", {"people": "shared"}).folds(WORLD))
    for split in shared:
        assert set(WORLD.subjects[split.train]) == set(WORLD.subjects[split.test]) == set(WORLD.subjects)
        assert sorted([*split.train, *split.test]) == list(range(len(WORLD)))


def test_devices_worn_at_once_share_an_occasion():
    assert occasions(WORLD).tolist() == VALUES["session"].tolist()
    assert occasions(WORLD)[0] == "a/s0/r0"


def test_only_the_random_protocol_warns_and_it_shares_people_and_samples():
    assert [name for name in PROTOCOLS.names() if PROTOCOLS.get(name).warning] == ["random"]
    assert "inflated, by 10 to 16 %" in PROTOCOLS.get("random").warning
    (split,) = open_protocol("random", {"seed": 1}).folds(WORLD)
    assert set(WORLD.subjects[split.train]) == set(WORLD.subjects[split.test])
    assert len(split.test) == round(len(WORLD) / 4)


def test_sessions_of_every_person_stand_on_both_sides_and_impostors_on_neither():
    (split,) = open_protocol("session", {"impostor_fraction": 0.25, "seed": 2}).folds(WORLD)
    impostors = set(WORLD.subjects[split.impostors])
    assert len(impostors) == 2
    assert set(WORLD.subjects[split.train]) == set(WORLD.subjects[split.test]) == set(WORLD.subjects) - impostors
    assert not set(occasions(WORLD)[split.train]) & set(occasions(WORLD)[split.test])
    assert sorted([*split.train, *split.test, *split.impostors]) == list(range(len(WORLD)))


@pytest.mark.parametrize("hop_s", [0.5, 1.0])
@pytest.mark.parametrize("guard", [1.0, 2.0, 3.5])
def test_a_single_session_is_divided_in_time_with_a_guard_gap(hop_s, guard):
    windows = worn(sessions=1, each=24, hop_s=hop_s)
    (split,) = open_protocol("session", {"guard_windows": guard}).folds(windows)
    for subject in np.unique(windows.subjects):
        train, test = (windows.start_s[rows][windows.subjects[rows] == subject] for rows in (split.train, split.test))
        assert guard <= test.min() - (train.max() + 1.0) < guard + hop_s
        assert len(test) == pytest.approx(24 / 4, abs=1)
    with pytest.raises(DataError, match="guard_windows: must be 1 or more, got 0.5"):
        list(open_protocol("session", {"guard_windows": 0.5}).folds(windows))


def test_a_protocol_suits_a_task_unless_it_keeps_the_classes_apart():
    found = {
        task: [name for name in PROTOCOLS.names() if TASKS.get(task).suits(open_protocol(name))]
        for task in TASKS.names()
    }
    assert found["activity"] == list(PROTOCOLS.names())
    assert found["placement"] == [name for name in PROTOCOLS.names() if name != "leave_placement_out"]
    assert found["user"] == ["random", "session"]
    for task in TASKS.names():
        assert TASKS.get(task).default_protocol in found[task]
    with pytest.raises(ConfigError, match="--protocol subject: must not keep subjects apart, which task user"):
        split_protocol(DataOptions(task="user", protocol="subject"))
    with pytest.raises(UnknownNameError, match="task: name must be one of activity, placement, user"):
        split_protocol(DataOptions(task="mood"))


def test_tasks_label_windows_by_what_they_tell_apart():
    assert TASKS.get("activity").relabel(WORLD) is WORLD
    for task, values in (("placement", WORLD.placements), ("user", WORLD.subjects)):
        labelled = TASKS.get(task).relabel(WORLD)
        assert labelled.classes == tuple(sorted(set(values)))
        assert [labelled.classes[label] for label in labelled.labels] == values.tolist()
        np.testing.assert_array_equal(labelled.x, WORLD.x)


def test_options_reach_the_protocol_and_unknown_ones_are_refused():
    protocol = split_protocol(
        DataOptions(split_seed=7, test_fraction=0.5, protocol_options=("impostor_fraction=0.25",), task="user")
    )
    values = {"seed": 7, "test_fraction": 0.5, "impostor_fraction": 0.25, "guard_windows": 2.0}
    assert (protocol.name, to_json(protocol)) == ("session", values)
    with pytest.raises(ConfigError, match="protocol group_k_fold: key must be one of n_folds, seed, got 'people'"):
        split_protocol(DataOptions(protocol="group_k_fold", protocol_options=("people=shared",)))


def test_classes_training_never_shows_are_left_out_and_counted():
    windows = worn(datasets=("a", "b"), classes=4)
    windows.labels[(windows.datasets == "a") & (windows.labels == 1)] = 0
    (other, split) = open_protocol("leave_dataset_out").folds(windows)
    assert other.held_out == ("a",)
    assert split.held_out == ("b",)
    kept, left_out = without_unseen(windows, split)
    assert kept.classes == ("a", "c", "d")
    assert left_out == {"b": int((windows.labels[split.test] == 1).sum())}
    named = [windows.classes[label] for label in windows.labels]
    renamed = [kept.classes[label] if label >= 0 else "b" for label in kept.labels]
    assert renamed == named
    kept, left_out = without_unseen(windows, other)
    assert (kept.classes, left_out) == (windows.classes, {})
    np.testing.assert_array_equal(kept.labels, windows.labels)


def test_windows_without_overlap_are_those_of_a_loop_by_hand():
    windows = worn(subjects=2, each=12, hop_s=0.4)
    rows = np.random.default_rng(0).permutation(len(windows))[:30]
    expected, last = [], {}
    for row in sorted(rows, key=lambda each: (windows.sessions[each], windows.start_s[each])):
        session = windows.sessions[row]
        if session not in last or windows.start_s[row] >= last[session] + 1.0 - 1e-6:
            expected.append(int(row))
            last[session] = windows.start_s[row]
    assert without_overlap(windows, rows).tolist() == sorted(expected)
    tight = worn(subjects=2, each=12)
    assert without_overlap(tight, np.arange(len(tight))).tolist() == list(range(len(tight)))


def test_few_shot_draws_of_every_size_and_seed_nest_and_pay_for_validation():
    windows = worn(subjects=4, sessions=2, each=60)
    for seed in range(5):
        before: set[int] = set()
        for shots in SHOTS:
            drawn = few_shot(windows, np.arange(len(windows)), shots=shots, seed=seed, validation_fraction=0.2)
            both = np.concatenate([drawn.train, drawn.validation])
            assert np.bincount(windows.labels[both]).tolist() == [shots] * 3
            assert len(set(both.tolist())) == 3 * shots
            assert len(drawn.validation) == 3 * min(round(0.2 * shots), shots - 1)
            assert before <= set(both.tolist())
            before = set(both.tolist())
