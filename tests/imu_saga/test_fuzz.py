"""Broken csv files, a thousand of them: predictions in SI units or an error of ours; no traceback and no hang."""

import random
import time

import numpy as np
import pytest
import torch

from imu_saga.card import ModelCard
from imu_saga.datasets import open_dataset
from imu_saga.input_spec import InputSpec
from imu_saga.predict import check_windows, predict_recordings
from imu_saga.recording import IMU_CHANNELS
from imu_saga.signal.resample import resample_all
from imu_saga.trained import build_base, preprocessing
from shared_peft.errors import SagaPeftError
from shared_peft.training import TrainedModel

FILES, SEEDS = 1200, 6
LONGEST_S = 2.0  # for one file; the usual one takes a few milliseconds
ROWS, RATE_HZ = 240, 50.0
HEADER = "time,acc_x,acc_y,acc_z,gyro_x,gyro_y,gyro_z,label"
ACC_UNITS = {"m/s^2": 1.0, "g": 9.80665}
GYRO_UNITS = {"rad/s": 1.0, "deg/s": np.pi / 180}
NUMBERS = ("1e308", "-1e308", "1e-320", "1e999", "99999999999", "1e30", "5000", "-0", "+3", "1e5", "0", "1_000", "١٢")
WORDS = ("NaN", "nan", "inf", "-inf", "0x1F", "0b1", "9,81", "1.2.3", "--1", "True", "NULL", "N/A", "-", "'", '"', "\0")
CELLS = (*NUMBERS, *WORDS, "", " ", "=1+1", "1970-01-01", "00:00:01", "é", "\ufeff")


@pytest.fixture(scope="module")
def run():
    """A small classifier of 2 s at 20 Hz, untrained: what it says does not matter, that it says something does."""
    options = {"width": 16, "depth": 1, "heads": 2}
    card = ModelCard("saga", InputSpec(IMU_CHANNELS, 20.0, 40), options, ("sit", "walk"))
    model, shape = build_base(card).eval(), (40, 6)
    return TrainedModel(
        "imu_saga", model, lambda: build_base(card), "window", shape, card.classes, preprocessing(card),
        torch.zeros(1, *shape), {}, {},
    )  # fmt: skip


def answered(run, recordings, what):
    """Tell whether the file got predictions, and check them; the only other thing it may get is an error of ours."""
    try:
        found = predict_recordings(run, recordings)
        check_windows(found, run, what)
    except SagaPeftError:
        return False
    assert all(each.label in ("", *run.classes) for each in found), what
    assert all(0 <= each.confidence <= 1 and each.start_s < each.end_s for each in found), what
    return True


def signal():
    """(rows,) times [s] and (rows, 6) SI signal: a hand that tilts, and turns as fast as gravity tilts."""
    seconds = np.arange(ROWS) / RATE_HZ
    tilt = 0.8 * np.sin(2 * np.pi * 0.9 * seconds)
    none = np.zeros_like(tilt)
    acc = 9.81 * np.stack([np.sin(tilt), none, np.cos(tilt)], axis=1)
    gyro = np.stack([none, -np.gradient(tilt, seconds), none], axis=1)
    noise = np.random.default_rng(0).normal(0, 0.02, (ROWS, 6))
    return seconds, np.concatenate([acc, gyro], axis=1) + noise


def lines_in(acc_unit, gyro_unit):
    seconds, values = signal()
    scaled = values / np.repeat([ACC_UNITS[acc_unit], GYRO_UNITS[gyro_unit]], 3)
    rows = [",".join([f"{t:.3f}", *(f"{x:.6f}" for x in row), "walk"]) for t, row in zip(seconds, scaled, strict=True)]
    return [HEADER, *rows]


def spoil_cells(draw, lines):
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(lines))
        cells = lines[at].split(",")
        cells[draw.randrange(len(cells))] = draw.choice(CELLS)
        lines[at] = ",".join(cells)
    return "\n".join(lines).encode()


def spoil_column(draw, lines):
    column, text = draw.randrange(8), draw.choice(CELLS)
    first = draw.randrange(1, len(lines))
    for at in range(first, min(len(lines), first + draw.choice((3, 20, 100)))):
        cells = lines[at].split(",")
        cells[column] = text
        lines[at] = ",".join(cells)
    return "\n".join(lines).encode()


def spoil_rows(draw, lines):
    for _ in range(draw.randint(1, 4)):
        first = draw.randrange(1, len(lines))
        last = min(len(lines), first + draw.choice((1, 2, 10, 60)))
        match draw.randrange(5):
            case 0:
                lines[first:last] = lines[first:last] * draw.choice((2, 3))
            case 1:
                lines[first:last] = reversed(lines[first:last])
            case 2:
                del lines[first : min(last, first + 40)]
            case 3:
                part = lines[first:last]
                draw.shuffle(part)
                lines[first:last] = part
            case _:
                lines.insert(first, draw.choice(("", ",", "," * 7, HEADER, "#comment", "\0\0", "a" * 5000, ";" * 7)))
        if len(lines) < 2:
            return b"x"
    return "\n".join(lines).encode()


def spoil_bytes(draw, lines):
    data = bytearray("\n".join(lines).encode())
    for _ in range(draw.randint(1, 3)):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(data)


def cut_off(draw, lines):
    data = "\n".join(lines).encode()
    return data[: draw.randrange(len(data))] if draw.random() < 0.7 else data[draw.randrange(len(data)) :]


def insert_anything(draw, lines):
    data = bytearray("\n".join(lines).encode())
    pieces = (
        b'"',
        b'""',
        b"\0",
        b"\r",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"9" * 70_000,
        b"," * 500,
        b"\x1a",
        b"\n\n",
        b"\t",
        b";",
    )
    for _ in range(draw.randint(1, 5)):
        at = draw.randrange(len(data))
        data[at:at] = draw.choice(pieces)
    return bytes(data)


def other_encoding(draw, lines):
    text = "\n".join(lines)
    match draw.randrange(5):
        case 0:
            return text.encode(draw.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "cp037")))
        case 1:
            return text.replace("walk", "marché").encode("latin-1")
        case 2:
            return text.replace(",", draw.choice(";|\t ")).encode()
        case 3:
            return text.replace(".", ",").encode()
        case _:
            half = len(text) // 2
            return (text[:half] + text[half:].replace(",", ";")).encode()


MUTATIONS = (spoil_cells, spoil_column, spoil_rows, spoil_bytes, cut_off, insert_anything, other_encoding)


def options_of(draw):
    """Return one of the ways a user may read the file."""
    return draw.choice(
        (
            {},
            {"label": "label"},
            {"sort": True},
            {"split_resets": True},
            {"separator": "tab", "decimal": "comma"},
            {"time": None, "rate_hz": RATE_HZ},
        )
    )


def check_units(recordings, what):
    """Every recording that lasts 1 s or more must be the true signal's size, in m/s^2 and rad/s."""
    for one in recordings:
        assert np.isfinite(one.signal).all()
        if len(one) < 20:
            continue
        length = np.median(np.linalg.norm(one.signal[:, :3], axis=1))
        turning = np.median(np.abs(one.signal[:, 4]))
        assert 9 < length < 10.6, what
        assert 0.5 < turning < 6, what


@pytest.mark.filterwarnings("ignore:.*sorted by time:UserWarning")
@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_broken_csv_gives_predictions_from_si_recordings_or_an_error_of_ours(tmp_path, run, seed):
    draw, path = random.Random(seed), tmp_path / "walk.csv"
    read = refused = predicted = 0
    for number in range(FILES // SEEDS):
        acc_unit, gyro_unit = draw.choice(list(ACC_UNITS)), draw.choice(list(GYRO_UNITS))
        mutate = MUTATIONS[number % len(MUTATIONS)]
        path.write_bytes(mutate(draw, lines_in(acc_unit, gyro_unit)))
        options = options_of(draw)
        what = f"file {number} of seed {seed}: {mutate.__name__}, {acc_unit}, {gyro_unit}, {options}"
        start = time.perf_counter()
        try:
            native = open_dataset("csv", options).read(path)
            recordings = resample_all(native, 20.0)
        except SagaPeftError:
            refused += 1
        except Exception as error:
            raise AssertionError(what) from error
        else:
            read += 1
            check_units(recordings, what)
            predicted += answered(run, native, what)
        assert time.perf_counter() - start < LONGEST_S, what
    assert read >= 20
    assert refused >= 60
    assert predicted >= 20
