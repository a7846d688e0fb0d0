"""Which tensors of a task become inputs of the graph: factors of the adapted layers, and the task's own modules."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from deploy.multi.layer import Slot, changes_of
from deploy.multi.task import Task
from shared_peft.errors import ExportError
from shared_peft.factors import Factors
from shared_peft.inject import adapter_layers

CLASSES = "classes"


@dataclass(frozen=True)
class GraphInput:
    """One tensor that a task brings.

    Args:
        name: of the graph's input.
        path: of the parameter or buffer it takes the place of.
        default: what stands for it where a task brings nothing: a change of rank 1 that is 0, or the base's value.
        free: name of each free dimension by its index; equal names are equal sizes.
    """

    name: str
    path: str
    default: np.ndarray
    free: dict[int, str]


@dataclass(frozen=True, eq=False)
class TaskTensors:
    """One task's tensors as they come from the model.

    Args:
        changes: of each adapted slot.
        own: of the modules that are the task's own, by their names in the model.
    """

    changes: dict[Slot, Factors]
    own: dict[str, Tensor]


def tensors_of(task: Task) -> TaskTensors:
    """Return what a task's model has beside the frozen base.

    Raises:
        ExportError: an adapter whose change is no chain of small maps.
    """
    changes: dict[Slot, Factors] = {}
    for name, layer in adapter_layers(task.module):
        found = changes_of(layer)
        if found is None:
            must = "its change must be one chain of small maps, as of LoRA, LoRA-TSD and FLoRA"
            fix = "Fine-tune with one of these, or export the run merged"
            raise ExportError(f"task {task.name}, layer {name}", must, task.method, fix)
        changes |= found
    own = {name: tensor for name, tensor in task.plain().state_dict().items() if is_own(name, task.own)}
    return TaskTensors(changes, own)


def is_own(name: str, modules: Sequence[str]) -> bool:
    """Tell whether a tensor belongs to one of the modules."""
    return any(name.startswith(f"{module}.") for module in modules)


def same_forms(tasks: Mapping[str, TaskTensors]) -> dict[str, TaskTensors]:
    """Return the tasks with every slot's change in one form: the in-factor kept apart only where all have one.

    A kernel of one tap, and a linear layer, need no in-factor: multiplied into the core it is as small, and a product
    less. Of convolutions with a larger kernel three small convolutions after each other are kept.
    """
    slots = {slot for tensors in tasks.values() for slot in tensors.changes}
    found = {slot: [t.changes[slot] for t in tasks.values() if slot in t.changes] for slot in slots}
    apart = {slot for slot, each in found.items() if slot.chain and all(_is_sequential(factors) for factors in each)}

    def formed(slot: Slot, factors: Factors) -> Factors:
        return factors if slot in apart else factors.without_in_factor()

    return {
        name: TaskTensors({slot: formed(slot, factors) for slot, factors in each.changes.items()}, each.own)
        for name, each in tasks.items()
    }


def _is_sequential(factors: Factors) -> bool:
    return factors.in_factor is not None and math.prod(factors.core.shape[2:]) > 1


def arrays_of(tensors: TaskTensors, factors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a task's tensors by the names of the graph's inputs, float32, as an adapter file holds them.

    Args:
        tensors: as they come from the model.
        factors: factor on each row of a tensor, shape (rows,), by name; see `deploy.multi.fold`.
    """
    parts = [slot.stored(change) for slot, change in tensors.changes.items()]
    arrays = {name: _array(tensor) for part in (*parts, tensors.own) for name, tensor in part.items()}
    return {name: _times(array, factors.get(name)) for name, array in arrays.items()}


def _times(array: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
    return array if rows is None else (array * rows.reshape(-1, *(1,) * (array.ndim - 1))).astype(np.float32)


def _array(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().cpu().float().numpy())


def own_inputs(tasks: Mapping[str, TaskTensors], counts: Mapping[str, int], head: Sequence[str]) -> list[GraphInput]:
    """Return the inputs for the tasks' own modules; the head's first dimension is free, the number of classes.

    Args:
        tasks: their tensors.
        counts: number of classes by task.
        head: names of the modules that make the logits.

    Raises:
        ExportError: own modules that differ in more than the number of classes.
    """
    first = next(iter(tasks))
    shapes = {task: {name: tuple(t.shape) for name, t in each.own.items()} for task, each in tasks.items()}
    counted = {
        name
        for name in shapes[first]
        if is_own(name, head) and all(shapes[task].get(name, ())[:1] == (counts[task],) for task in tasks)
    }
    fixed = {task: {name: shape[name in counted :] for name, shape in found.items()} for task, found in shapes.items()}
    for task, found in fixed.items():
        if found != fixed[first]:
            odd = sorted(n for n in found.keys() | fixed[first].keys() if found.get(n) != fixed[first].get(n))
            must = f"its own modules must have the shapes of task {first}'s, but for the number of classes"
            fix = "Fine-tune all tasks alike: with the window's statistics, or all without"
            raise ExportError(f"task {task}", must, f"others for {', '.join(odd)}", fix)
    inputs = []
    for name, tensor in tasks[first].own.items():
        _check_type(f"task {first}", name, tensor)
        free = name in counted
        default = np.zeros((1, *tensor.shape[1:]), np.float32) if free else _array(tensor)
        inputs.append(GraphInput(name, name, default, {0: CLASSES} if free else {}))
    return inputs


def _check_type(where: str, name: str, tensor: Tensor) -> None:
    if tensor.dtype != torch.float32:
        must, fix = f"{name} must be float32", "Leave this module to the base"
        raise ExportError(where, must, tensor.dtype, fix)


def replaced(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put ``module`` in the place of the submodule called ``name``."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
