"""SavedModule: a module trained in full and stored with the adapter, such as a new classifier head."""

import copy
from typing import Any

from torch import Tensor, nn

from shared_peft.sample_rows import joined_rows, rows_of


class SavedModule(nn.Module):
    """Holds the original module, frozen, and one trained copy for each adapter that asked for it.

    Args:
        original_module: the module as it was.
    """

    def __init__(self, original_module: nn.Module) -> None:
        super().__init__()
        self.original_module = original_module.requires_grad_(False)
        self.copies = nn.ModuleDict()
        self.active: str | None = None
        self.sample_names: tuple[str, ...] | None = None  # adapter of each sample, set for one forward
        self.enabled = True

    def add(self, adapter: str) -> None:
        """Make the adapter its own copy of the original module."""
        self.copies[adapter] = copy.deepcopy(self.original_module).requires_grad_(True)

    def remove(self, adapter: str) -> None:
        """Drop the adapter's copy."""
        if adapter in self.copies:
            del self.copies[adapter]
        if self.active == adapter:
            self.active = None

    @property
    def current(self) -> nn.Module:
        """The copy of the active adapter, or the original module."""
        if self.enabled and self.active is not None and self.active in self.copies:
            return self.copies[self.active]
        return self.original_module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the current module, or each sample's own."""
        if self.sample_names is not None and self.enabled:
            return self._for_each_sample(args[0])
        return self.current(*args, **kwargs)

    def _for_each_sample(self, x: Tensor) -> Tensor:
        """Run each adapter's copy on its own rows; adapters without one take the original module."""
        assert self.sample_names is not None
        parts = list(rows_of(self.sample_names, x.device))
        copies = dict(self.copies.items())
        modules = [copies.get(name, self.original_module) for name, _ in parts]
        outputs = [module(x[rows]) for module, (_, rows) in zip(modules, parts, strict=True)]
        return joined_rows(outputs, [rows for _, rows in parts])

    def __getattr__(self, name: str) -> Any:
        """Answer as the current module would."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "original_module" not in self.__dict__.get("_modules", {}):
                raise
        return getattr(self.current, name)
