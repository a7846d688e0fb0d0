"""The pages of docs/methods, one a registered adapter method: `python -m tests.method_pages` writes them.

A method's equation and when to use it stand in its own module's docstring, its options in its configuration's; what is
counted is counted here, and the measured row is read from docs/methods/measured.md, which
`python -m tests.benchmarks.method_rows --write` renews.
"""

import dataclasses
import inspect
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

from torch import nn

from shared_peft import METHODS, AdapterMethod, get_peft_model, make_config
from shared_peft.atomic import write_text
from shared_peft.errors import ConfigError, TargetError

DOCS = Path(__file__).resolve().parents[1] / "docs"
METHOD_DOCS = DOCS / "methods"
MEASURED = METHOD_DOCS / "measured.md"
RANK = 4
LINEAR = "linear, 384 to 384"
LAYERS = {
    LINEAR: lambda: nn.Linear(384, 384),
    "3x3 convolution, 64 to 64": lambda: nn.Conv2d(64, 64, 3),
    "3x3 convolution, depthwise, 64": lambda: nn.Conv2d(64, 64, 3, groups=64),
    "attention, width 192": lambda: nn.MultiheadAttention(192, 3),
}
REFERENCES = ("probe", "full")  # rows of measured.md that stand beside every method


def method_pages() -> dict[str, str]:
    """Return every generated page of docs/methods by its file's name."""
    pages = {f"{name}.md": method_page(name, method) for name, method in METHODS.items()}
    return {**pages, "index.md": index_page()}


def method_page(name: str, method: type[AdapterMethod]) -> str:
    """Return one method's page."""
    module = sys.modules[method.__module__]
    config = method.config_class
    return f"""# {name}

{_sentence(method)}.

Source: {method.citation}.

## Equation

```text
{described(module.__doc__, "Equation")}
```

## When to use it

{" ".join(described(module.__doc__, "Use").split())}

{_merging(method)}

## In code

```python
import torch

from shared_peft import get_peft_model
from {method.__module__} import {config.__name__}

network = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.ReLU(), torch.nn.Conv2d(16, 16, 1))
model = get_peft_model(network, {config.__name__}())
model.print_trainable_parameters()
```

On the command line: `--method {name}`.

## Options

{_options(config)}

The others are those of every method: `target_modules`, `exclude_modules`, `modules_to_save`, `qkv_parts`.

## Parameters of a layer

{_parameters(name)}

## Measured

{_measured(name)}

The task, and all methods beside each other: [measured](measured.md).
"""


def described(documentation: str | None, heading: str) -> str:
    """Return the indented lines under a heading of a module's docstring.

    Raises:
        ConfigError: there is no such heading.
    """
    found = re.search(rf"^{heading}:\n((?:    .*\n|\n)+)", f"{documentation}\n", re.MULTILINE)
    if found is None:
        title = (documentation or "no docstring").splitlines()[0]
        raise ConfigError(title, f'must have a paragraph "{heading}:"', "none", "Write it into the module's docstring")
    return textwrap.dedent(found[1]).strip("\n")


def index_page() -> str:
    """Return the overview."""
    rows = [
        f"| [`{name}`]({name}.md) | {_sentence(method).replace('|', chr(92) + '|')} | "
        f"{'yes' if method.mergeable else 'no'} | {_with_rank(name, LINEAR)} |"
        for name, method in METHODS.items()
    ]
    table = "\n".join(["| name | what it is | mergeable | parameters |", "|---|---|---|---|", *rows])
    return f"""# Adapter methods

{len(METHODS.names())} methods are registered. Each works on linear layers, convolutions of one to three dimensions
(transposed, grouped and dilated ones too), embeddings, attention and recurrent layers. Those that cannot be merged
work on linear layers and dense convolutions only.

Parameters are those of a linear layer from 384 to 384, which has {_own(LAYERS[LINEAR]()):,} itself, with r = {RANK}
where there is a rank.

{table}

How they do at equal parameters on one real task: [measured](measured.md). A method of your own:
[add one](../add/method.md).
"""


def _sentence(entry: object) -> str:
    """Return the first sentence of a class's description, without its period."""
    return " ".join((inspect.getdoc(entry) or "").split("\n\n")[0].split()).rstrip(".")


def _merging(method: type[AdapterMethod]) -> str:
    if method.mergeable:
        return "It can be merged into the weights. A merged or exported model has no extra operations."
    return "It cannot be merged. An exported model has extra nodes beside each adapted layer."


def _options(config: type) -> str:
    """Return a table of a configuration's own fields; those of every method are left out."""
    documented = _documented(config)
    common = {field.name for field in dataclasses.fields(METHODS.get("ssl").config_class)}
    rows = [
        f"| `{field.name}` | {_default(field)} | {documented.get(field.name, '').replace('|', chr(92) + '|')} |"
        for field in sorted(dataclasses.fields(config), key=lambda field: field.kw_only)
        if field.name not in common
    ]
    return "\n".join(["| option | default | what it does |", "|---|---|---|", *rows]) if rows else "None of its own."


def _default(field: Any) -> str:
    value = field.default_factory() if field.default is dataclasses.MISSING else field.default
    return f"`{value!r}`"


def _documented(config: type) -> dict[str, str]:
    """Return the descriptions of a configuration's fields, its bases' included."""
    found: dict[str, str] = {}
    for each in reversed(config.__mro__):
        arguments = re.search(r"^Args:\n((?:    .*\n|\n)+)", f"{inspect.cleandoc(each.__doc__ or '')}\n", re.MULTILINE)
        if arguments is not None:
            for entry in re.split(r"\n(?=\w)", textwrap.dedent(arguments[1]).strip()):
                names, _, text = entry.partition(":")
                found |= {name.strip(): " ".join(text.split()) for name in names.split(",")}
    return found


def _parameters(name: str) -> str:
    rows = [f"| {layer} | {_own(make()):,} | {_with_rank(name, layer)} |" for layer, make in LAYERS.items()]
    rank = f", r = {RANK}" if hasattr(make_config(name), "r") else ""
    head = f"| layer | its own | adapter{rank} |"
    return "\n".join([head, "|---|---|---|", *rows])


def _own(layer: nn.Module) -> int:
    return sum(parameter.numel() for parameter in layer.parameters())


def _with_rank(name: str, layer: str) -> str:
    """Return the trainable values on one of LAYERS."""
    config = make_config(name, **({"r": RANK} if hasattr(make_config(name), "r") else {}))
    try:
        return f"{get_peft_model(nn.Sequential(LAYERS[layer]()), config).get_nb_trainable_parameters()[0]:,}"
    except TargetError:
        return "not adapted"


def _measured(name: str) -> str:
    """Return the method's row of measured.md between its head and the rows every method is beside."""
    lines = [line for line in MEASURED.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    rows = {line.split("`")[1]: line for line in lines[2:]}
    kept = [rows[each] for each in (name, *REFERENCES) if each in rows]
    return "\n".join([*lines[:2], *kept]) if name in rows else "Not measured yet."


def main() -> None:
    """Write every page, and remove those of methods that are gone."""
    pages = method_pages()
    for path in set(METHOD_DOCS.glob("*.md")) - {METHOD_DOCS / name for name in (*pages, MEASURED.name)}:
        path.unlink()
    for name, text in pages.items():
        write_text(METHOD_DOCS / name, text)


if __name__ == "__main__":
    main()
