"""What each adapted layer holds: one row a layer, for people and for tests."""

from dataclasses import dataclass

from shared_peft.layer import AdapterLayer


@dataclass(frozen=True)
class LayerStatus:
    """One adapted layer.

    Args:
        name: full name in the model.
        module_type: class of the frozen layer.
        weight_shapes: shape of each adapted weight as methods see it, by slot.
        enabled: whether adapters are switched on.
        active_adapters: adapters in use here.
        merged_adapters: adapters whose change is in the weights now.
        available_adapters: all adapters of the layer.
        parameters: trainable values by adapter.
        path: "weight", "activation" or "factored"; "auto" takes the cheapest in training.
        reason: which path the last training step took and what each would have cost; empty before the first.
    """

    name: str
    module_type: str
    weight_shapes: dict[str, tuple[int, ...]]
    enabled: bool
    active_adapters: list[str]
    merged_adapters: list[str]
    available_adapters: list[str]
    parameters: dict[str, int]
    path: str
    reason: str


def layer_status(name: str, layer: AdapterLayer) -> LayerStatus:
    """Return the row of one layer."""
    sizes = {adapter: sum(p.numel() for p in methods.parameters()) for adapter, methods in layer.adapters.items()}
    return LayerStatus(
        name=name,
        module_type=type(layer.base_layer).__name__,
        weight_shapes={slot.key: layer.spec(slot).shape for slot in layer.slots},
        enabled=layer.enabled,
        active_adapters=[adapter for adapter in layer.active if adapter in layer.adapters],
        merged_adapters=list(layer.merged),
        available_adapters=list(layer.adapters),
        parameters=sizes,
        path=layer.path,
        reason=str(layer.costs or ""),
    )
