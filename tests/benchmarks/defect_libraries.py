"""Adapter libraries behind one interface, each called as its users call it: ours, Hugging Face peft, LyCORIS.

Every adapter has rank 2 and alpha 3.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from shared_peft import METHODS, PeftModel, get_peft_model, make_config
from vision.torchvision_ops import declare_missing_operators

RANK, ALPHA = 2, 3.0
Method = Literal["lora", "hadamard"]
Targets = list[str] | str


class NotAdaptedError(Exception):
    """The library left out all it was asked to adapt."""


class NotOfferedError(Exception):
    """The library does not offer what is asked for."""


class Library(Protocol):
    """What is asked of every library."""

    title: str

    def adapt(self, model: nn.Module, targets: Targets, method: Method = "lora") -> nn.Module:
        """Attach an adapter to these layers, or to "all-linear"; "hadamard" is a product of low-rank matrices."""
        ...

    def starts(self, model: Callable[[], nn.Module]) -> Iterator[tuple[str, nn.Module]]:
        """Return a convolution, named "0" in its model, with a fresh adapter of every method there is for it."""
        ...

    def merge(self, adapted: nn.Module) -> None:
        """Write the change into the weights, with the library's check for NaN if it has one."""
        ...

    def merge_and_unmerge(self, adapted: nn.Module) -> None:
        """Write the change into the weights and take it out again."""
        ...

    def save(self, adapted: nn.Module, folder: Path) -> Path:
        """Save the adapter, and return its file of tensors."""
        ...

    def load(self, model: nn.Module, folder: Path) -> nn.Module:
        """Load it into another model, in evaluation mode."""
        ...


class Ours:
    """This library."""

    title = "ours"

    def adapt(self, model: nn.Module, targets: Targets, method: Method = "lora") -> nn.Module:
        name = {"lora": "lora", "hadamard": "hira"}[method]
        return get_peft_model(model, make_config(name, r=RANK, lora_alpha=ALPHA, target_modules=targets))

    def starts(self, model: Callable[[], nn.Module]) -> Iterator[tuple[str, nn.Module]]:
        for name in METHODS.names():
            yield name, get_peft_model(model(), make_config(name))

    def merge(self, adapted: Any) -> None:
        adapted.merge_adapter(safe_merge=True)

    def merge_and_unmerge(self, adapted: Any) -> None:
        adapted.merge_adapter()
        adapted.unmerge_adapter()

    def save(self, adapted: Any, folder: Path) -> Path:
        adapted.save_pretrained(folder)
        return folder / "adapter_model.safetensors"

    def load(self, model: nn.Module, folder: Path) -> nn.Module:
        return PeftModel.from_pretrained(model, folder).eval()


class HuggingFace:
    """Hugging Face peft."""

    def __init__(self) -> None:
        declare_missing_operators()
        import peft

        self.peft, self.title = peft, f"peft {version('peft')}"

    def adapt(self, model: nn.Module, targets: Targets, method: Method = "lora") -> nn.Module:
        if method == "hadamard":
            config = self.peft.LoHaConfig(r=RANK, alpha=int(ALPHA), target_modules=targets)
        else:
            config = self.peft.LoraConfig(r=RANK, lora_alpha=int(ALPHA), target_modules=targets)
        return self.peft.get_peft_model(model, config)  # type: ignore[arg-type]

    def starts(self, model: Callable[[], nn.Module]) -> Iterator[tuple[str, nn.Module]]:
        library, layer = self.peft, ["0"]
        configs = {
            "LoRA": library.LoraConfig(target_modules=layer),
            "DoRA": library.LoraConfig(target_modules=layer, use_dora=True),
            "LoHa": library.LoHaConfig(target_modules=layer),
            "LoKr": library.LoKrConfig(target_modules=layer),
            "IA3": library.IA3Config(target_modules=layer, feedforward_modules=[]),
            "BOFT": library.BOFTConfig(target_modules=layer, boft_block_size=2),
            "OFT": library.OFTConfig(target_modules=layer, oft_block_size=2, r=0),
        }
        for name, config in configs.items():
            yield name, library.get_peft_model(model(), config).eval()  # type: ignore[arg-type]

    def merge(self, adapted: Any) -> None:
        adapted.merge_adapter(safe_merge=True)

    def merge_and_unmerge(self, adapted: Any) -> None:
        adapted.merge_adapter()
        adapted.unmerge_adapter()

    def save(self, adapted: Any, folder: Path) -> Path:
        adapted.save_pretrained(str(folder))
        return folder / "adapter_model.safetensors"

    def load(self, model: Any, folder: Path) -> nn.Module:
        return self.peft.PeftModel.from_pretrained(model, str(folder)).eval()


class LycorisModel(nn.Module):
    """A model and the LyCORIS network in it."""

    def __init__(self, model: nn.Module, network: Any) -> None:
        super().__init__()
        self.model, self.network = model, network

    def forward(self, x: Tensor, adapter_names: list[str] | None = None) -> Tensor:
        if adapter_names is not None:
            raise NotOfferedError("adapter_names")
        return self.model(x)


class Lycoris:
    """LyCORIS."""

    def __init__(self) -> None:
        import lycoris

        logging.getLogger("LyCORIS").setLevel(logging.ERROR)
        self.network, self.title = lycoris.LycorisNetwork, f"LyCORIS {version('lycoris-lora')}"

    def adapt(self, model: nn.Module, targets: Targets, method: Method = "lora") -> LycorisModel:
        return self._adapt(model, targets, {"lora": "locon", "hadamard": "loha"}[method])

    def starts(self, model: Callable[[], nn.Module]) -> Iterator[tuple[str, nn.Module]]:
        for algorithm in ("locon", "loha", "lokr", "diag-oft", "boft", "ia3", "glora", "full"):
            yield algorithm, self._adapt(model(), ["0"], algorithm).eval()

    def merge(self, adapted: Any) -> None:
        adapted.network.restore()
        adapted.network.merge_to(1.0)

    def merge_and_unmerge(self, adapted: Any) -> None:
        adapted.network.onfly_merge()
        adapted.network.onfly_restore()

    def save(self, adapted: Any, folder: Path) -> Path:
        path = folder / "lycoris.safetensors"
        adapted.network.save_weights(str(path), None, None)
        return path

    def load(self, model: nn.Module, folder: Path) -> nn.Module:
        layers = (nn.Conv2d, nn.Linear)
        targets = [name for name, module in model.named_modules() if isinstance(module, layers)]
        adapted = self.adapt(model, targets)
        report = adapted.network.load_weights(str(folder / "lycoris.safetensors"))
        if report:
            warnings.warn(f"{report}", stacklevel=1)  # it is returned, and taken for a warning here
        return adapted.eval()

    def _adapt(self, model: nn.Module, targets: Targets, algorithm: str) -> LycorisModel:
        """Attach a network to layers by name; "all-linear" is what a preset without convolutions adapts."""
        every = targets == "all-linear"
        names = [] if every else [f"{name}$" for name in targets]
        types = ["Linear", "Conv1d", "Conv2d", "Conv3d"] if every else []
        preset = {"enable_conv": not every, "target_module": types, "target_name": names}
        options = {"lora_dim": RANK, "conv_lora_dim": RANK, "alpha": ALPHA, "conv_alpha": ALPHA, "bypass_mode": False}
        model.requires_grad_(False)
        self.network.apply_preset(preset)
        with torch.random.fork_rng():
            network = self.network(model, network_module=algorithm, warn_on_unmatched=False, **options)  # type: ignore[arg-type]
        if not network.loras:
            raise NotAdaptedError
        network.apply_to()
        return LycorisModel(model, network)
