"""What each adapted layer costs: parameters, and multiply-accumulates counted by torch on one run without values."""

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from shared_peft.inject import adapter_layers
from shared_peft.status import layer_status


@dataclass(frozen=True)
class LayerReport:
    """Cost of one adapted layer.

    Args:
        layer: full name in the model, or "total".
        weight_shapes: shape of each adapted weight as methods see it, by slot.
        parameters: trainable values by adapter.
        macs: multiply-accumulates of the frozen layer's forward on the example.
        extra_macs: those the active adapters add in training: of the chain beside the layer, or of building W + dW
            where the layer takes no chain. 0 when merged.
    """

    layer: str
    weight_shapes: dict[str, tuple[int, ...]]
    parameters: dict[str, int]
    macs: int
    extra_macs: int


@dataclass(frozen=True)
class Report:
    """Rows of all adapted layers, and their total.

    Args:
        rows: one for each adapted layer, in the model's order.
        total: sums over them; the whole model's multiply-accumulates count, not only those of adapted layers.
    """

    rows: tuple[LayerReport, ...]
    total: LayerReport = field()

    def __str__(self) -> str:
        """Return a table for people."""
        header = ("layer", "weight", "parameters", "MACs", "extra MACs")
        lines = [header, *(_words(row) for row in (*self.rows, self.total))]
        widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
        return "\n".join(
            "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in lines
        )


def layer_report(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Report:
    """Return what each adapted layer of a model costs on an example; the model is not changed.

    Args:
        model: the adapted model.
        args: an example of its positional arguments.
        kwargs: an example of its keyword arguments.
    """
    frozen, adapted = _counted(model, args, kwargs)
    rows = []
    for name, layer in adapter_layers(model):
        status = layer_status(name, layer)
        extra = adapted.get(name, 0) - frozen.get(name, 0)
        rows.append(LayerReport(name, status.weight_shapes, status.parameters, frozen.get(name, 0), extra))
    adapters = dict.fromkeys(adapter for row in rows for adapter in row.parameters)
    parameters = {adapter: sum(row.parameters.get(adapter, 0) for row in rows) for adapter in adapters}
    total = LayerReport("total", {}, parameters, frozen[""], adapted[""] - frozen[""])
    return Report(tuple(rows), total)


def _counted(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[dict[str, int], dict[str, int]]:
    """Return the multiply-accumulates of every module by name ("" for the model), frozen and with chains."""
    from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode  # noqa: PLC0415  (slow to import)

    try:
        fake = FakeTensorMode(allow_non_fake_inputs=True)
        with FakeCopyMode(fake):
            twin = copy.deepcopy(model)
        with fake:
            example = tree_map(
                lambda leaf: fake.from_tensor(leaf) if isinstance(leaf, Tensor) else leaf, (args, kwargs)
            )
            return _count_twice(twin, *example)
    except Exception:  # the model's forward needs values: count on a real run of a copy
        return _count_twice(copy.deepcopy(model), args, kwargs)


def _count_twice(
    twin: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[dict[str, int], dict[str, int]]:
    layers = [layer for _, layer in adapter_layers(twin)]
    before = [layer.enabled for layer in layers]
    for layer in layers:
        layer.path, layer.enabled = "activation", False
    frozen = _count(twin, args, kwargs)
    for layer, enabled in zip(layers, before, strict=True):
        layer.enabled = enabled
    return frozen, _count(twin, args, kwargs)


def _count(twin: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, int]:
    from torch.utils.flop_counter import FlopCounterMode  # noqa: PLC0415  (slow to import)

    with torch.enable_grad(), FlopCounterMode(display=False) as counter:
        twin(*args, **kwargs)
    root = type(twin).__name__
    counts = {name: sum(operations.values()) // 2 for name, operations in counter.get_flop_counts().items()}
    found = {name.removeprefix(f"{root}."): macs for name, macs in counts.items() if name.startswith(f"{root}.")}
    return found | {"": counts.get("Global", 0)}


def _words(row: LayerReport) -> tuple[str, ...]:
    shapes = ", ".join(f"{key} {'x'.join(map(str, shape))}" for key, shape in row.weight_shapes.items())
    parameters = ", ".join(f"{adapter} {size:,d}" for adapter, size in row.parameters.items())
    return row.layer, shapes, parameters, f"{row.macs:,d}", f"{row.extra_macs:,d}"
