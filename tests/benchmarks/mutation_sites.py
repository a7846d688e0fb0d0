"""Places where a source file can be broken by one operator, and the broken source.

The operators are cosmic-ray's: other arithmetic, comparisons, numbers, conditions, loops, decorators, exceptions. Left
out: annotations, which nothing runs, and bits and shifts in the place of arithmetic, which any test finds.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

NEEDING_OPTIONS = ("core/VariableReplacer", "core/VariableInserter")
ARITHMETIC, BITS = ("Add", "Sub", "Mul", "Div", "FloorDiv", "Mod", "Pow"), ("Shift", "BitOr", "BitAnd", "BitXor")

Span = tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Mutant:
    """One change to one file.

    Args:
        file: path below the tree's root.
        operator: cosmic-ray's name of it.
        occurrence: which of the operator's places in the file.
        line: line of the place, from 1.
    """

    file: str
    operator: str
    occurrence: int
    line: int

    @property
    def name(self) -> str:
        """What identifies it."""
        return f"{self.file}:{self.line}:{self.operator.removeprefix('core/')}:{self.occurrence}"

    def source(self, root: Path) -> str:
        """Return the changed file."""
        code = mutate_code((root / self.file).read_text("utf-8"), get_operator(self.operator)(), self.occurrence)
        if code is None:
            raise LookupError(self.name)
        return code


def sites(root: Path, file: str) -> list[list[Mutant]]:
    """Return the mutants of a file, those of one place together."""
    source = (root / file).read_text("utf-8")
    idle = list(_annotations(ast.parse(source)))
    nodes = list(ast_nodes(get_ast(source)))
    found: defaultdict[tuple[str, Span], list[Mutant]] = defaultdict(list)
    for name in operator_names():
        if name in NEEDING_OPTIONS or _finds_itself(name):
            continue
        operator = get_operator(name)()
        spans = (span for node in nodes for span in operator.mutation_positions(node))
        family = name.split("_", 1)[0]
        for occurrence, span in enumerate(spans):
            if not any(first <= span[0] and span[1] <= last for first, last in idle):
                found[family, span].append(Mutant(file, name, occurrence, span[0][0]))
    return [found[place] for place in sorted(found, key=lambda place: (place[1], place[0]))]


def _finds_itself(operator: str) -> bool:
    """Tell whether an operator puts bits in the place of arithmetic, a TypeError on floats."""
    words = operator.split("_")
    return words[0].endswith("BinaryOperator") and words[1] in ARITHMETIC and words[2].endswith(BITS)


def _annotations(tree: ast.AST) -> Iterator[Span]:
    for node in ast.walk(tree):
        for part in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if isinstance(part, ast.expr):
                last = (part.end_lineno or part.lineno, part.end_col_offset or part.col_offset)
                yield (part.lineno, part.col_offset), last
