"""Changes: what some adapters together make of one layer's weights, of its output, or of one chain beside it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from shared_peft.factors import Factors, added
from shared_peft.layer_kind import LayerKind, LayerMapsOf, WeightSlot
from shared_peft.method import AdapterMethod


@dataclass(frozen=True)
class Part:
    """One method on one weight.

    Args:
        slot: the weight.
        method: the method.
        strength: factor on its change.
    """

    slot: WeightSlot
    method: AdapterMethod
    strength: float = 1.0


@dataclass(frozen=True)
class Changes:
    """Some adapters' changes of one layer; they add up.

    Args:
        kind: the layer's kind.
        layer: the frozen layer.
        parts: one for each adapter and weight.
    """

    kind: LayerKind
    layer: nn.Module
    parts: tuple[Part, ...]

    @property
    def mergeable(self) -> bool:
        """Whether all of them are weight changes."""
        return all(part.method.mergeable for part in self.parts)

    @property
    def drops(self) -> bool:
        """Whether any drops a part of its input in training."""
        return any(part.method.dropout for part in self.parts)

    def parameters(self) -> tuple[str, ...]:
        """Return the names of the layer's parameters that are changed."""
        return tuple(dict.fromkeys(part.slot.parameter for part in self.parts if part.method.mergeable))

    def sources(self, parameter: str) -> Iterator[Any]:
        """Iterate over all that a changed parameter depends on: tensors, and factors on changes."""
        yield self.layer.get_parameter(parameter)
        for part in self._of(parameter):
            yield from (*part.method.parameters(), *part.method.buffers(), part.strength)

    def weight(self, parameter: str) -> Tensor:
        """Return W + dW in the weight's own type, summed in the wider of both."""
        stored = self.layer.get_parameter(parameter)
        return self._add(stored, stored, self._of(parameter))

    def factors(self) -> Factors | None:
        """Return the changes of a layer with one parameter as one chain, or None where a method has none."""
        parts = [self._factors_of(part) for part in self.parts]
        return None if any(part is None for part in parts) else added([part for part in parts if part is not None])

    def run_beside(self, x: Tensor, *, training: bool) -> Tensor:
        """Run the frozen layer, and add to its output what the methods make of the input (the activation path)."""
        output = self.layer(x)
        if self.kind.runs_chain(self.layer) and not (training and self.drops):
            together = self.factors() if self.mergeable else None
            if together is not None:
                chain = self.kind.run_chain(self.layer, _in_type(x, together.core), together)
                return output + chain.to(output.dtype)
        return output + self.of_input(x, output, training=training)

    def of_input(self, x: Tensor, output: Tensor, *, training: bool) -> Tensor:
        """Return the sum of what each method makes of the input, after its own dropout, to add to the output."""
        outputs = []
        for part in self.parts:
            dropout = part.method.dropout
            dropped = functional.dropout(x, dropout, training) if dropout and x.is_floating_point() else x
            outputs.append(self._part_of_input(part, dropped, output).to(output.dtype))
        return outputs[0] if len(outputs) == 1 else torch.stack(outputs).sum(0)

    def _of(self, parameter: str) -> list[Part]:
        return [part for part in self.parts if part.slot.parameter == parameter and part.method.mergeable]

    def _add(self, onto: Tensor, stored: Tensor, parts: list[Part]) -> Tensor:
        result = onto
        for part in parts:
            slot = part.slot
            change = slot.stored(part.method.delta_weight(slot.read(stored)))
            change = change if part.strength == 1 else change * part.strength
            if slot.rows is not None:
                after = stored.shape[0] - slot.rows[1]
                change = functional.pad(change, (*(0, 0) * (change.dim() - 1), slot.rows[0], after))
            result = result + change
        return result.to(stored.dtype)

    def _factors_of(self, part: Part) -> Factors | None:
        factors = part.method.factors() if part.method.mergeable else None
        if factors is None:
            return None
        factors, rows = factors.scaled(part.strength), part.slot.rows
        if rows is None:
            return factors
        return factors.in_rows(rows[0], self.layer.get_parameter(part.slot.parameter).shape[0])

    def _part_of_input(self, part: Part, x: Tensor, output: Tensor) -> Tensor:
        """Return what one method adds to the layer's output for input ``x``."""
        if not part.method.mergeable:
            values, maps = next(part.method.parameters()), LayerMapsOf(self.kind, self.layer)
            return part.method.respond(_in_type(x, values), _in_type(output, values), maps) * part.strength
        factors = self._factors_of(part) if self.kind.runs_chain(self.layer) else None
        if factors is not None:
            return self.kind.run_chain(self.layer, _in_type(x, factors.core), factors)
        stored = self.layer.get_parameter(part.slot.parameter)
        replaced = {part.slot.parameter: self._add(torch.zeros_like(stored), stored, [part])}
        bias = getattr(self.layer, "bias", None)
        if isinstance(bias, Tensor):
            replaced["bias"] = torch.zeros_like(bias)
        return torch.func.functional_call(self.layer, replaced, (x,))


def _in_type(x: Tensor, values: Tensor) -> Tensor:
    """Return a floating input in the adapter's type, unless autocast decides."""
    keep = not x.is_floating_point() or torch.is_autocast_enabled(x.device.type)
    return x if keep else x.to(values.dtype)
