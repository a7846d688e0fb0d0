"""One step of a training: gradients of its batches, a look at whether they are finite, the optimiser."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from shared_peft.errors import TrainingError
from shared_peft.inject import training_penalty
from shared_peft.training.not_finite import first_not_finite
from shared_peft.training.train_config import TrainConfig, learning_rate_factor

Batch = Sequence[torch.Tensor]
Objective = Callable[[nn.Module, Batch, int], tuple[torch.Tensor, dict[str, float]]]


class Stepper:
    """Makes steps, each a function of (seed, step).

    Args:
        model: the model, without wrappers.
        objective, batches, config: as `shared_peft.training.train` takes them.
        optimizer: AdamW over what is trained.
        accelerator: accelerate's, for this process.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        batches: Callable[[int], Batch],
        config: TrainConfig,
        optimizer: torch.optim.Optimizer,
        accelerator: Any,
    ) -> None:
        self.model, self.objective, self.batches, self.config = model, objective, batches, config
        self.optimizer, self.accelerator = optimizer, accelerator
        self.wrapped, self.wrapped_optimizer = accelerator.prepare(model, optimizer)
        self.peaks = [group["lr"] for group in optimizer.param_groups]
        self.trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    @property
    def learning_rate(self) -> float:
        """The first group's, of the last step."""
        return self.optimizer.param_groups[0]["lr"]

    def gradients(self, step: int, resumable: str) -> tuple[float, dict[str, float], int]:
        """Set the learning rates of a step and add up its gradients, clipped.

        Args:
            step: 0-based.
            resumable: what an error says about going on.

        Returns:
            The last batch's loss over all processes, penalties included, its logs, and the rows of all batches.

        Raises:
            TrainingError: the loss or the gradient is not finite.
        """
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * learning_rate_factor(step, self.config)
        loss, logs, rows, indices = torch.tensor(math.nan), {}, 0, self._indices(step)
        for index in indices:
            loss, logs, seen = self._loss(self.wrapped, index)
            last = index == indices[-1]
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                self.accelerator.backward(loss / len(indices))
            rows += seen
        mean = float(self.accelerator.reduce(loss.detach(), "mean"))
        norm = float(self.accelerator.clip_grad_norm_(self.trained, self.config.clip_norm or math.inf))
        skipped = self.accelerator.scaler is not None  # fp16 lets such a step pass
        if not (math.isfinite(mean) and (skipped or math.isfinite(norm))):
            raise self._not_finite(mean, norm, step, resumable)
        return mean, logs, rows

    def apply(self) -> None:
        """Move the weights; the gradients stay for who looks at them."""
        self.wrapped_optimizer.step()

    def clear(self) -> None:
        """Drop the gradients."""
        self.wrapped_optimizer.zero_grad(set_to_none=True)

    def finish(self) -> None:
        """Take back what accelerate put around ``forward``: the model answers in full precision again."""
        if self.accelerator.native_amp:
            self.accelerator.unwrap_model(self.wrapped, keep_fp32_wrapper=False)
            vars(self.model).pop("forward", None)

    def _indices(self, step: int) -> range:
        """Return the numbers of a step's batches."""
        micros = self.config.gradient_accumulation
        return range(step * micros, (step + 1) * micros)

    def _loss(self, model: nn.Module, index: int) -> tuple[torch.Tensor, dict[str, float], int]:
        """Return the loss of batch ``index`` on this process's rows, penalties included, its logs, and all its rows."""
        accelerator = self.accelerator
        torch.manual_seed((self.config.seed * 7_368_787 + index * 1_009 + accelerator.process_index) % 2**63)
        whole = self.batches(index)
        rank, world = accelerator.process_index, accelerator.num_processes
        batch = [tensor[rank::world].to(accelerator.device, non_blocking=True) for tensor in whole]
        with accelerator.autocast():
            loss, logs = self.objective(model, batch, index // self.config.gradient_accumulation)
        # processes are averaged as equals, rows should be: one with a row more counts for more
        loss = loss * (len(batch[0]) * world / len(whole[0]))
        penalty = training_penalty(model)
        return loss if penalty is None else loss + penalty, logs, len(whole[0])

    def _not_finite(self, loss: float, norm: float, step: int, resumable: str) -> TrainingError:
        def again() -> Iterator[torch.Tensor]:
            for index in self._indices(step):
                yield self._loss(self.model, index)[0]

        what, value = ("gradient", norm) if math.isfinite(loss) else ("loss", loss)
        got = f"{value}, first in {first_not_finite(self.model, again())}"
        fix = f"Look at the data of this step, or start anew with a lower learning rate{resumable}"
        return TrainingError(f"step {step}", f"the {what} must be finite", got, fix)
