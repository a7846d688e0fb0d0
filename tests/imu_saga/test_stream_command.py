"""`stream` on the command line: what predict says of the file, line by line; bad lines, sockets, latency."""

import csv
import io
import json
import re
import socket
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imu_saga.commands import COMMANDS
from imu_saga.finetune import FinetuneConfig, finetune
from imu_saga.predict import predict_csv
from imu_saga.recording import IMU_CHANNELS
from imu_saga.streaming.lines import MAX_LINE, LineColumns, LineReader
from imu_saga.trained import load_run, save_run
from shared_peft.command import run_commands
from shared_peft.errors import DataError
from shared_peft.training import RunFolder
from tests.imu_saga.planted import people

SI = ["--source-hz", "50", "--acc-unit", "m/s^2", "--gyro-unit", "rad/s", "--time-unit", "s", "--clock", "stamps"]


@pytest.fixture(scope="module")
def run_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    windows = people(subjects=3, each=6)
    name, model = finetune(windows, FinetuneConfig(method="scratch", steps=4, batch_size=12))
    save_run(RunFolder.create(path, "imu_saga.finetune", {}), name, model, windows, {"scores": {}})
    return path


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A csv file of 50 Hz: 20 s, with 0.4 s and 4 s lost."""
    times = np.arange(1000) / 50
    tilt = 0.5 * np.sin(2 * np.pi * 0.7 * times)
    signal = np.stack([0 * tilt, 9.8 * np.sin(tilt), 9.8 * np.cos(tilt), np.gradient(tilt, times), tilt, tilt], axis=1)
    kept = ~((times > 5) & (times < 5.4)) & ~((times > 10) & (times < 14))
    path = tmp_path_factory.mktemp("csv") / "me.csv"
    names = ",".join(("time", *IMU_CHANNELS))
    np.savetxt(path, np.column_stack([times, signal])[kept], "%.9f", ",", header=names, comments="")
    return path


class Standing:
    """Standard input that holds some bytes and gives a few at a time."""

    def __init__(self, content: bytes, at_once: int) -> None:
        self.content, self.at_once, self.buffer = io.BytesIO(content), at_once, self

    def read1(self, size: int) -> bytes:
        return self.content.read(min(size, self.at_once))


def call(*arguments):
    return run_commands("imu_saga", COMMANDS, ["stream", *(str(argument) for argument in arguments)])


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def check_rows(rows, expected):
    assert [row["note"] for row in rows] == [each.note for each in expected]
    assert [row["label"] for row in rows] == [each.label for each in expected]
    for row, each in zip(rows, expected, strict=True):
        assert float(row["start_s"]) == pytest.approx(each.start_s, abs=1e-3)
        assert float(row["confidence"]) == pytest.approx(each.confidence, abs=1.1e-4)


@pytest.mark.parametrize("at_once", [37, 1 << 20])
def test_a_file_on_standard_input_is_answered_as_predict_answers_it(run_path, recorded, monkeypatch, capsys, at_once):
    expected = predict_csv(load_run(run_path), recorded, options={"gyro_unit": "rad/s"})
    monkeypatch.setattr("sys.stdin", Standing(recorded.read_bytes().rstrip(b"\n"), at_once))
    assert call(run_path, *SI, "--every", 2) == 0
    shown = capsys.readouterr()
    check_rows(rows_of(shown.out), expected)
    lines = shown.err.splitlines()
    assert "windows, latency p50 " in lines[0]
    assert lines[-1].startswith("6 windows, latency p50 ")  # the last two are answered at the end
    assert lines[-1].endswith("0 lines skipped")


def test_json_lines_hold_the_probabilities(run_path, recorded, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", Standing(recorded.read_bytes(), 4096))
    assert call(run_path, *SI, "--format", "json", "--probabilities") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = predict_csv(load_run(run_path), recorded, options={"gyro_unit": "rad/s"})
    for line, each in zip(lines, expected, strict=True):
        assert list(line["probabilities"].values()) == pytest.approx(list(each.probabilities), abs=1e-5)


def test_a_socket_of_localhost_is_answered_as_the_file(run_path, recorded, capsys):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def send():
        for _ in range(200):
            try:
                with socket.create_connection(("127.0.0.1", port)) as client:
                    client.sendall(recorded.read_bytes())
                return
            except ConnectionRefusedError:
                time.sleep(0.05)

    sender = threading.Thread(target=send)
    sender.start()
    assert call(run_path, *SI, "--port", port) == 0
    sender.join()
    shown = capsys.readouterr()
    check_rows(rows_of(shown.out), predict_csv(load_run(run_path), recorded, options={"gyro_unit": "rad/s"}))
    assert f"waiting for a client of 127.0.0.1:{port}" in shown.err


def test_bad_lines_are_told_by_number_and_skipped_or_end_the_stream(run_path, recorded, monkeypatch, capsys):
    lines = recorded.read_bytes().splitlines()
    lines[10:10] = [b"hello", b"1,2,x,4,5,6,7", b"\xff\xfe,1,2,3,4,5,6", b"nan,1,2,3,4,5,6", b"1,inf,2,3,4,5,6", b""]
    monkeypatch.setattr("sys.stdin", Standing(b"\n".join(lines), 5000))
    assert call(run_path, *SI) == 0
    shown = capsys.readouterr()
    check_rows(rows_of(shown.out), predict_csv(load_run(run_path), recorded, options={"gyro_unit": "rad/s"}))
    told = [line.split(" skipped")[0] for line in shown.err.splitlines() if " skipped: " in line]
    assert told == [f"line {number}" for number in range(11, 16)]
    assert "5 lines skipped" in shown.err
    monkeypatch.setattr("sys.stdin", Standing(b"\n".join(lines), 5000))
    assert call(run_path, *SI, "--on-bad", "stop") == 2
    assert "stream, line 11: must be 7 cells, got 1 in 'hello'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (b"t,a\n1,2\n", (), "columns 'time', 'acc_x', .* must be in the header, got t, a"),
        (b"", (), "0 windows"),
        (b"\xff\xff\n\xff", (), "line 1 skipped: must be UTF-8 text"),
        (b"1,2\n", ("--columns", "header=t,a"), "stream, header: columns 'time'"),
        (b"", ("--columns", "tyme=t"), "key must be one of acc, gyro, header, time, got 'tyme'"),
        (b"", ("--smoothing", "median"), "name must be one of hysteresis, none, vote"),
    ],
)
def test_streams_that_say_nothing_end_with_a_line_and_no_traceback(
    run_path, monkeypatch, capsys, content, arguments, message
):
    monkeypatch.setattr("sys.stdin", Standing(content, 100))
    assert call(run_path, *SI, *arguments) in (0, 2)
    shown = capsys.readouterr().err
    assert re.search(message, shown)
    assert "Traceback" not in shown


@settings(deadline=None, max_examples=60)
@given(sizes=st.lists(st.integers(1, 60), max_size=20), separator=st.sampled_from([",", ";", "\t"]))
def test_lines_cut_anywhere_are_read_as_whole_ones(sizes, separator):
    table = np.random.default_rng(0).normal(0, 9, (30, 8)).round(4)
    names = ["x", "ts", *IMU_CHANNELS]
    text = "\r\n".join(separator.join(map(str, row)) for row in [names, *table.tolist()]).encode()
    reader = LineReader(LineColumns(time="ts"), IMU_CHANNELS[::-1])
    edges = np.cumsum([0, *sizes]).tolist()
    parts = [reader.feed(text[a:b]) for a, b in zip(edges, edges[1:], strict=False)]
    parts += [reader.feed(text[edges[-1] :]), reader.finish()]
    np.testing.assert_array_equal(np.concatenate([stamps for stamps, _ in parts]), table[:, 1])
    np.testing.assert_array_equal(np.concatenate([values for _, values in parts]), table[:, :1:-1])


def test_an_endless_line_is_one_bad_line_and_is_not_kept():
    told = []
    reader = LineReader(LineColumns(header=("time", *IMU_CHANNELS)), IMU_CHANNELS, tell=told.append)
    for _ in range(50):
        reader.feed(b"7" * 10_000)
        assert len(reader.rest) <= MAX_LINE
    times, _ = reader.feed(b"7,7\n1,2,3,4,5,6,7\n")
    assert times.tolist() == [1.0]
    assert told == [f"line 1 skipped: must be at most {MAX_LINE} bytes, got a longer line"]
    reader.on_bad = "stop"
    with pytest.raises(DataError, match="stream, line 3: must be numbers, got 'a,2,3,4,5,6,7'"):
        reader.feed(b"a,2,3,4,5,6,7\n")


def test_empty_cells_are_values_not_measured():
    reader = LineReader(LineColumns(time=None, header=IMU_CHANNELS), IMU_CHANNELS)
    times, values = reader.feed(b"1,2,,4,5,6\n")
    assert times is None
    np.testing.assert_array_equal(values, [[1, 2, np.nan, 4, 5, 6]])


def test_columns_are_guessed_from_the_header_only_where_none_are_named():
    told = []
    line = b"Timestamp (ms);Acc X (g);Acc Y (g);Acc Z (g);Gyro X (deg/s);Gyro Y (deg/s);Gyro Z (deg/s);note\n"
    reader = LineReader(LineColumns(), IMU_CHANNELS, tell=told.append)
    times, values = reader.feed(line + b"70;1;2;3;4;5;6;0\n")
    assert times.tolist() == [70]
    np.testing.assert_array_equal(values, [[1, 2, 3, 4, 5, 6]])
    assert told[0].startswith("columns taken: --columns 'acc=Acc X (g),Acc Y (g),Acc Z (g)'")
    with pytest.raises(DataError, match="columns 'acc_x'"):
        LineReader(LineColumns(time="Timestamp (ms)"), IMU_CHANNELS).feed(line)
    unstamped = LineReader(LineColumns(), IMU_CHANNELS)
    assert unstamped.feed(b"ax,ay,az,gx,gy,gz\n1,2,3,4,5,6\n")[0] is None
