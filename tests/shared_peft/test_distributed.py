"""Two processes on the CPU, through accelerate: the adapters of one process on the same global batch."""

import gc
import os
import socket
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from shared_peft import FloraConfig, LoraTsdConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from shared_peft.training import Batch, TrainConfig, train

STEPS = 5
CONFIGS = {
    "lora_tsd": LoraTsdConfig(r=2, n_directions=3, warmup_steps=3, modules_to_save=["3"]),
    "flora": FloraConfig(r=2, kernel_r=2, modules_to_save=["3"]),
}


def trained(config: object, accelerator: Accelerator | None) -> dict[str, Tensor]:
    """Train a few steps on this process's half of every batch, or on all of it."""
    torch.manual_seed(0)
    base = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3), nn.Linear(3, 3))
    model = get_peft_model(base, config, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    runner, stepper = (model, optimizer) if accelerator is None else accelerator.prepare(model, optimizer)
    generator = torch.Generator().manual_seed(2)
    for step in range(1, STEPS + 1):
        x, target = torch.randn(8, 3, 4, 4, generator=generator), torch.randn(8, 3, generator=generator)
        if accelerator is not None:
            own = slice(accelerator.process_index, None, accelerator.num_processes)
            x, target = x[own], target[own]
        stepper.zero_grad()
        loss = (runner(x) - target).square().mean()
        loss.backward() if accelerator is None else accelerator.backward(loss)
        stepper.step()
        inner = model if accelerator is None else accelerator.unwrap_model(runner)
        assert isinstance(inner, PeftModel)
        inner.update_and_allocate(step, optimizer)
    return get_peft_model_state_dict(model)


def looped(accelerator: Accelerator | None) -> Tensor:
    """Train by the one loop on batches of 5 rows, which two processes cannot share evenly."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    data = torch.randn(40, 4, generator=torch.Generator().manual_seed(3))
    config = TrainConfig(8, learning_rate=0.05, gradient_accumulation=2, ema_decay=0.7, validate_every=2, patience=2)

    def objective(model: nn.Module, batch: Batch, step: int) -> tuple[Tensor, dict[str, float]]:
        return (model(batch[0]) - batch[0][:, :3].sin()).square().mean(), {}

    def validate(model: nn.Module) -> float:
        return float((model(data) - data[:, :3]).square().mean())

    assert (1 if accelerator is None else accelerator.num_processes) in (1, 2)
    result = train(model, objective, lambda index: [data[5 * (index % 8) :][:5]], config, validate=validate)
    kept = torch.tensor([result.steps, result.kept_step, result.rows, result.loss])
    return torch.cat([model.weight.detach().flatten(), model.bias.detach(), kept])


def work(rank: int, port: int, folder: str) -> None:
    """One process of two, as `accelerate launch` would start it: train, leave the adapters' tensors in a file."""
    torch.set_num_threads(1)
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    os.environ.update(address | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"})
    accelerator = Accelerator(cpu=True)
    assert (accelerator.num_processes, accelerator.process_index) == (2, rank)
    results = {name: trained(config, accelerator) for name, config in CONFIGS.items()} | {"loop": looped(accelerator)}
    torch.save(results, Path(folder) / f"{rank}.pt")
    gc.collect()  # wrappers of the models hold on to the process group, and abort where they outlive it
    accelerator.wait_for_everyone()
    accelerator.end_training()


def test_two_processes_hold_the_adapters_one_process_trains_on_the_whole_batch(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    spawn(work, (port, str(tmp_path)), nprocs=2)
    both = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for name, config in CONFIGS.items():
        first, second, alone = both[0][name], both[1][name], trained(config, None)
        assert first.keys() == second.keys() == alone.keys()
        assert all(torch.equal(tensor, second[key]) for key, tensor in first.items())
        for key, tensor in alone.items():
            assert torch.allclose(first[key], tensor, rtol=1e-3, atol=1e-5), (name, key)
    first, second, alone = both[0]["loop"], both[1]["loop"], looped(None)
    assert torch.equal(first, second)
    torch.testing.assert_close(first, alone, rtol=1e-5, atol=1e-6)
    assert {int(tensor) for key, tensor in both[1]["lora_tsd"].items() if key.endswith("launched_at")} == {3}
