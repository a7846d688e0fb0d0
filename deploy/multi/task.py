"""One task on a shared base: a trained run, and which of its modules are its own."""

import copy
from dataclasses import dataclass

from torch import Tensor, nn

from shared_peft import METHODS, PeftModel
from shared_peft.inject import adapter_layers, detach, saved_modules
from shared_peft.training import TrainedModel

NO_ADAPTER = "head"


@dataclass(frozen=True, eq=False)
class Task:
    """One task: a trained model on the shared base.

    Args:
        name: the adapter's name.
        trained: the run, its adapter attached, in eval mode.
        head: names of the modules that make the logits; they may have another number of classes in every task.
        readout: names of further modules that are the task's own.
        base_prefix: what stands before the base's names in the model's, such as "encoder.".
    """

    name: str
    trained: TrainedModel
    head: tuple[str, ...]
    readout: tuple[str, ...] = ()
    base_prefix: str = ""

    @property
    def module(self) -> nn.Module:
        """The model without the wrapper of a PeftModel; its layers hold the adapter."""
        model = self.trained.model
        return model.get_base_model() if isinstance(model, PeftModel) else model

    @property
    def own(self) -> tuple[str, ...]:
        """Names of all modules that are the task's own: the head, the readout, and what was trained in full."""
        saved = (name for name, _ in saved_modules(self.module))
        return tuple(dict.fromkeys((*self.head, *self.readout, *saved)))

    @property
    def method(self) -> str:
        """Names of the adapter's methods, or "head" where the task reads the frozen base itself."""
        parts = (part for _, layer in adapter_layers(self.module) for part in layer.changes(layer.active).parts)
        kinds = {type(part.method) for part in parts}
        return ", ".join(name for name, method in METHODS.items() if method in kinds) or NO_ADAPTER

    def plain(self) -> nn.Module:
        """Return a copy without adapters, its head the task's, on the CPU in eval mode."""
        return detach(copy.deepcopy(self.module).cpu().float().eval())

    def base_tensors(self) -> dict[str, Tensor]:
        """Return the frozen tensors, by the base's own names; those of the task's own modules are left out."""
        owned = tuple(f"{module}." for module in self.own)
        stored = self.plain().state_dict()
        return {name.removeprefix(self.base_prefix): t for name, t in stored.items() if not name.startswith(owned)}
