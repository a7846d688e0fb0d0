"""A process of several that is killed: training ends in words within seconds and goes on later; a search goes on."""

import os
import signal
import socket
import time
from pathlib import Path

import pytest
import torch

from shared_peft.errors import TrainingError
from shared_peft.training import on_main, one_voice, train
from tests.faults.killing import SERVER
from tests.shared_peft.test_training import batches, config, folder_at, network, objective, weights

SECONDS, PAUSE_S = 20.0, 0.05


def work(rank: int, port: int, folder: Path, pause_s: float) -> None:
    """One process of two, as `accelerate launch` would start it: train, leave the weights or what was said."""
    torch.set_num_threads(1)
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    os.environ.update(address | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"})
    model, options = network(), config(steps=40, checkpoint_every=2)
    try:
        with one_voice():
            train(
                model,
                objective,
                batches,
                options,
                folder=on_main(lambda: folder_at(folder / "run", resume=True)),
                resume=True,
                after_step=lambda *_: time.sleep(pause_s),
            )
    except TrainingError as error:
        (folder / f"said_{rank}.txt").write_text(str(error))
    else:
        torch.save(weights(model), folder / f"weights_{rank}.pt")


def started(folder: Path, pause_s: float = 0.0) -> list:
    """Start two processes that train together in ``folder``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder.mkdir(exist_ok=True)
    pair = [SERVER.Process(target=work, args=(rank, port, folder, pause_s)) for rank in range(2)]
    for process in pair:
        process.start()
    return pair


def trained_weights(folder: Path) -> torch.Tensor:
    """Let two processes train to the end; return the main one's weights."""
    pair = started(folder)
    for process in pair:
        process.join(120)
        assert process.exitcode == 0
    return torch.load(folder / "weights_0.pt")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> torch.Tensor:
    return trained_weights(tmp_path_factory.mktemp("lost") / "whole")


@pytest.mark.parametrize("killed", [0, 1])
def test_training_ends_in_words_soon_after_a_process_is_killed_and_goes_on_later(
    killed: int, undisturbed: torch.Tensor, tmp_path: Path
) -> None:
    pair = started(tmp_path, PAUSE_S)
    while not (tmp_path / "run" / "checkpoint.pt").exists():
        time.sleep(0.01)
        assert all(process.is_alive() for process in pair)
    os.kill(pair[killed].pid, signal.SIGKILL)
    pair[1 - killed].join(SECONDS)
    assert pair[1 - killed].exitcode == 0, "it says why it ends, and does not hang"
    said = (tmp_path / f"said_{1 - killed}.txt").read_text()
    assert said.startswith(f"process {1 - killed}: every process of the run must live, got a lost one (")
    assert said.endswith("Look for what ended it, then run the same with --resume.")
    assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["step"] < 40
    assert torch.equal(trained_weights(tmp_path), undisturbed)
