"""Lists on the command line, their items apart by spaces or commas: `--shots 1 5 20` and `--shots 1,5,20`."""

from collections.abc import Callable
from typing import Annotated, Any, TypeAlias

from tyro.constructors import PrimitiveConstructorSpec


def _spec(item: Callable[[str], Any], metavar: str) -> PrimitiveConstructorSpec[Any]:
    def parsed(words: list[str]) -> tuple[Any, ...]:
        return tuple(item(part) for word in words for part in word.split(",") if part)

    return PrimitiveConstructorSpec(
        nargs="*",
        metavar=f"[{metavar}[,{metavar} ...]]",
        instance_from_str=parsed,
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda values: [str(value) for value in values],
    )


Words: TypeAlias = Annotated[tuple[str, ...], _spec(str, "STR")]
Integers: TypeAlias = Annotated[tuple[int, ...], _spec(int, "INT")]
Floats: TypeAlias = Annotated[tuple[float, ...], _spec(float, "FLOAT")]
