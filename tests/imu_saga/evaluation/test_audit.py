"""The audit passes clean runs, fails every leak planted alone by exactly its check, and never passes the unknown."""

import json
import shutil

import numpy as np
import pytest

from imu_saga.evaluation.audit import audit_run, audit_table, shared_seconds
from imu_saga.evaluation.footprint import merged, read_footprint, side_of, write_footprint
from imu_saga.protocols import open_protocol
from imu_saga.windows import WindowSet
from shared_peft.errors import RunError, SagaPeftError
from shared_peft.training import RunFolder
from tests.imu_saga.worn import worn

WORLD = worn(subjects=6, sessions=3, each=10)
TRAIN, TEST = ("s0", "s1", "s2", "s3"), ("s4", "s5")


def of(*subjects, windows=WORLD):
    return windows.subset(np.isin(windows.subjects, subjects))


def make_run(path, sides, *, task="activity", links=None, kind="imu_saga.finetune"):
    """Write a run with these sides that comes from the runs in ``links``."""
    config = {name: str(origin) for name, origin in (links or {}).items()}
    RunFolder.create(path, kind, config)
    write_footprint(path, sides, task=task, protocol="planted", made_from=links)
    return path


def leaks(found):
    return sorted({(each.tested, each.trained, each.kind) for each in found.findings if each.leaks})


def in_session(subject, session, first, last, windows=WORLD):
    rows = windows.sessions == f"a/{subject}/r{session}/waist"
    return windows.subset(np.flatnonzero(rows)[first:last])


def joined(*parts: WindowSet) -> WindowSet:
    rows = np.concatenate([[np.flatnonzero((WORLD.x == one).all(axis=(1, 2)))[0] for one in part.x] for part in parts])
    return WORLD.subset(rows)


def test_a_split_by_subject_passes_with_all_its_origins(tmp_path):
    pre = make_run(tmp_path / "pre", {"pretrain": of(*TRAIN), "test": of(*TEST)}, kind="imu_saga.pretrain")
    again = make_run(tmp_path / "again", {"pretrain": of(*TRAIN)}, links={"start": pre}, kind="imu_saga.pretrain")
    search = make_run(tmp_path / "search", {"train": of("s0", "s1")}, links={"checkpoint": pre}, kind="imu_saga.search")
    origins = {"checkpoint": again, "weights_from": search}
    run = make_run(tmp_path / "run", {"train": of("s0"), "validation": of("s1"), "test": of(*TEST)}, links=origins)
    found = audit_run(run)
    assert found.verdict == "passed"
    assert {each.run for each in found.findings} == {str(path) for path in (pre, again, search, run)}
    assert {(each.trained, each.kind) for each in found.findings} >= {
        ("pretrain", "subject"),
        ("validation", "session"),
    }
    assert "verdict: PASSED" in audit_table(found)


@pytest.mark.parametrize("trained", ["pretrain", "train", "validation"])
@pytest.mark.parametrize("tested", ["test", "impostors"])
@pytest.mark.parametrize("origin", ["own", "start", "checkpoint", "weights_from"])
def test_a_shared_subject_is_caught_wherever_it_was_trained_on(tmp_path, trained, tested, origin):
    leaky, sides = {trained: in_session("s4", 0, 0, 10)}, {"train": of(*TRAIN), "test": of("s5"), "impostors": of("s5")}
    sides[tested] = in_session("s4", 1, 0, 10)
    links = {}
    if origin == "own":
        sides |= {trained: joined(of(*TRAIN), leaky[trained])}
    else:
        first = make_run(tmp_path / "first", leaky, kind="imu_saga.pretrain")
        links = {
            "checkpoint": make_run(
                tmp_path / "second", {"train": of("s0")}, links={origin: first}, kind="imu_saga.search"
            )
        }
    found = audit_run(make_run(tmp_path / "run", sides, links=links))
    assert leaks(found) == [(tested, trained, "subject")]
    (leak,) = [each for each in found.findings if each.leaks]
    assert (leak.shared, leak.examples, found.verdict) == (1, ("a/s4",), "leak")


@pytest.mark.parametrize(
    ("tested", "caught"),
    [
        (("s0", 1, 0, 10), []),
        (("s0", 0, 6, 10), ["session"]),
        (("s0", 0, 4, 10), ["raw sample", "session"]),
    ],
)
def test_each_leak_between_sessions_of_a_user_is_caught_by_its_own_check(tmp_path, tested, caught):
    sides = {"train": joined(in_session("s0", 0, 0, 5), in_session("s0", 2, 0, 10)), "test": in_session(*tested)}
    found = audit_run(make_run(tmp_path / "run", sides, task="user"))
    assert [kind for _, _, kind in leaks(found)] == caught
    assert found.verdict == ("leak" if caught else "passed")


def test_one_session_of_a_user_may_be_divided_by_a_gap_of_a_window(tmp_path):
    alone = worn(subjects=2, sessions=1, each=12)
    for first, verdict in ((5, "leak"), (6, "passed")):
        sides = {
            "train": alone.subset(np.flatnonzero(alone.start_s < 105)),
            "test": alone.subset(np.flatnonzero(alone.start_s >= 100 + first)),
        }
        found = audit_run(make_run(tmp_path / str(first), sides, task="user"))
        assert found.verdict == verdict
        assert leaks(found) == ([("test", "train", "session")] if verdict == "leak" else [])
        assert leaks(audit_run(make_run(tmp_path / f"{first}a", sides))) == [
            ("test", "train", "session"),
            ("test", "train", "subject"),
        ]


def test_devices_worn_at_once_share_their_session(tmp_path):
    both = worn(subjects=2, placements=("waist", "wrist"))
    sides = {name: both.subset(both.placements == place) for name, place in (("train", "waist"), ("test", "wrist"))}
    assert leaks(audit_run(make_run(tmp_path / "run", sides, task="user"))) == [("test", "train", "session")]


def test_an_impostor_may_never_have_been_seen_even_by_a_user_run(tmp_path):
    pre = make_run(tmp_path / "pre", {"pretrain": of("s0", "s5")}, kind="imu_saga.pretrain", task="user")
    sides = {"train": in_session("s0", 0, 0, 10), "test": in_session("s0", 1, 0, 10), "impostors": of("s5")}
    found = audit_run(make_run(tmp_path / "run", sides, links={"checkpoint": pre}, task="user"))
    assert ("impostors", "pretrain", "subject") in leaks(found)
    assert ("test", "train", "subject") not in leaks(found)


def test_the_random_split_of_limu_bert_fails(tmp_path):
    """Its preprocessing shuffles half-overlapping windows and takes 80 % to train, 10 % to validate, 10 % to test."""
    windows = worn(subjects=5, sessions=2, each=40, hop_s=0.5)
    order = np.random.default_rng(0).permutation(len(windows))
    train, validation, test = np.split(order, [round(0.8 * len(order)), round(0.9 * len(order))])
    pre = make_run(tmp_path / "pre", {"pretrain": windows.subset(train)}, kind="imu_saga.pretrain")
    sides = {
        name: windows.subset(rows)
        for name, rows in zip(("train", "validation", "test"), (train, validation, test), strict=True)
    }
    found = audit_run(make_run(tmp_path / "run", sides, links={"checkpoint": pre}))
    expected = [
        ("test", trained, kind)
        for trained in ("pretrain", "train", "validation")
        for kind in ("raw sample", "session", "subject")
    ]
    assert leaks(found) == expected
    subjects = next(
        each for each in found.findings if each.leaks and each.kind == "subject" and each.trained == "train"
    )
    assert subjects.shared == 5


def test_our_random_protocol_fails_and_our_user_protocol_passes(tmp_path):
    for name, task, verdict in (
        ("random", "activity", "leak"),
        ("random", "user", "leak"),
        ("session", "user", "passed"),
    ):
        windows = worn(subjects=6, sessions=1, each=40, hop_s=0.5)
        (split,) = open_protocol(name, {"impostor_fraction": 0.3} if name == "session" else {}).folds(windows)
        sides = {"train": windows.subset(split.train), "test": windows.subset(split.test)}
        run = make_run(tmp_path / f"{name}_{task}", sides | {"impostors": windows.subset(split.impostors)}, task=task)
        assert audit_run(run).verdict == verdict


def test_transductive_pretraining_is_allowed_only_when_asked_and_only_there(tmp_path):
    pre = make_run(tmp_path / "pre", {"pretrain": WORLD}, kind="imu_saga.pretrain")
    run = make_run(tmp_path / "run", {"train": of(*TRAIN), "test": of(*TEST)}, links={"checkpoint": pre})
    assert audit_run(run).verdict == "leak"
    assert audit_run(run, transductive=True).verdict == "passed"
    leaky = make_run(tmp_path / "leaky", {"train": of(*TRAIN, "s4"), "test": of(*TEST)}, links={"checkpoint": pre})
    assert {trained for _, trained, _ in leaks(audit_run(leaky, transductive=True))} == {"train"}


def test_an_origin_that_is_missing_changed_or_silent_is_unknown_never_passed(tmp_path):
    sides = {"train": of(*TRAIN), "test": of(*TEST)}
    pre = make_run(tmp_path / "pre", {"pretrain": of(*TRAIN)}, kind="imu_saga.pretrain")
    (pre / "model.safetensors").write_bytes(b"weights")
    run = make_run(tmp_path / "run", sides, links={"checkpoint": pre})
    assert audit_run(run).verdict == "passed"
    (pre / "model.safetensors").write_bytes(b"others")
    assert audit_run(run).unknown == (f"{pre}: holds other weights than the run was made from",)
    (pre / "model.safetensors").write_bytes(b"weights")
    (pre / "sides.json").unlink()
    assert "must hold sides.json to be audited" in audit_run(run).unknown[0]
    shutil.rmtree(pre)
    assert audit_run(run).unknown == (f"{pre}: not found; it was moved or removed",)
    assert audit_run(run).verdict == "unknown"
    published = tmp_path / "published.pt"
    published.write_bytes(b"weights")
    tuned = make_run(tmp_path / "tuned", sides, links={"checkpoint": published})
    assert "what it was trained on is not recorded" in audit_run(tuned).unknown[0]
    assert audit_run(tuned).verdict == "unknown"


def test_a_run_without_sides_cannot_be_audited(tmp_path):
    with pytest.raises(RunError, match="must be a run folder"):
        audit_run(tmp_path)
    RunFolder.create(tmp_path / "old", "imu_saga.finetune", {})
    with pytest.raises(RunError, match="must hold sides.json to be audited, got no such file"):
        audit_run(tmp_path / "old")
    nothing = make_run(tmp_path / "nothing", {"train": of(*TRAIN)})
    assert audit_run(nothing).verdict == "unknown"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 2}', '{"schema_version": 1, "sides": 3}'])
def test_damaged_sides_are_an_error_not_a_pass(tmp_path, text):
    run = make_run(tmp_path / "run", {"train": of(*TRAIN), "test": of(*TEST)})
    (run / "sides.json").write_text(text)
    with pytest.raises(SagaPeftError, match=r"sides\.json"):
        audit_run(run)


def test_runs_of_other_window_lengths_rates_and_overlaps_compare_in_time(tmp_path):
    short = worn(subjects=2, sessions=1, each=20, hop_s=0.25)
    long = worn(subjects=2, sessions=1, each=3, hop_s=2.0, seconds=2.0)
    for first_s, shared in ((105.5, 0.25), (105.75, 0.0), (100.0, 5.75)):
        late = long.subset(np.arange(len(long)))
        late.start_s[:] = first_s + 2.0 * (np.arange(len(long)) % 3)
        one, other = side_of(short), side_of(late)
        stretches = [side.people["a/s1"]["r0"]["waist"] for side in (one, other)]
        assert stretches[0] == [100.0, 105.75]
        assert shared_seconds(*stretches) == pytest.approx(shared)


def test_stretches_merge_and_overlap_like_a_fine_grid():
    rng = np.random.default_rng(0)
    for _ in range(200):
        lists = []
        for _ in range(2):
            starts = rng.integers(0, 60, rng.integers(1, 12))
            lists.append([(float(start), float(start + rng.integers(1, 6))) for start in starts])
        grids = [{cell for start, end in stretches for cell in range(int(start), int(end))} for stretches in lists]
        one, other = (merged(stretches, 1e-3) for stretches in lists)
        assert {
            cell for start, end in zip(one[::2], one[1::2], strict=True) for cell in range(int(start), int(end))
        } == grids[0]
        assert all(end < start for end, start in zip(one[1:-1:2], one[2::2], strict=True))
        assert shared_seconds(one, other) == pytest.approx(len(grids[0] & grids[1]))


def test_sides_are_read_back_and_stay_small(tmp_path):
    many = worn(subjects=50, sessions=10, each=400, hop_s=0.5)
    run = make_run(tmp_path / "run", {"pretrain": many})
    assert (run / "sides.json").stat().st_size < 50_000
    side = read_footprint(run).sides["pretrain"]
    assert (side.windows, side.window_s, len(side.people)) == (200_000, 1.0, 50)
    assert side.people["a/s7"]["r3"] == {"waist": [100.0, 300.5]}
    assert json.loads((run / "sides.json").read_text())["task"] == "activity"
