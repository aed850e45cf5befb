"""Small faults, one at a time: where the source could be wrong in one place, and the source with that fault.

A mutant is one change of one expression or statement: `<` for `<=`, `-` for `+`, `or` for `and`, a constant one higher,
a `not` or a negative sign less, `return None`, `max` for `min`, two arguments swapped, a call's statement deleted, a
keyword argument dropped, a bound of a slice moved or dropped, a condition that never or always holds, `break` for
`continue`. What only speaks is left alone: docstrings, strings, messages and whatever is raised, asserted, logged or
for type checkers; so are annotations, decorators and published facts.
"""

from __future__ import annotations

import ast
import copy
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

COMPARISONS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
ARITHMETIC = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
OPPOSITES = {"min": "max", "amin": "amax", "argmin": "argmax", "any": "all", "floor": "ceil", "minimum": "maximum"}
OPPOSITES |= {"clamp_min": "clamp_max", "sum": "mean", "zeros": "ones", "zeros_like": "ones_like", "append": "extend"}
OPPOSITES |= {back: name for name, back in OPPOSITES.items() if name != "append"}
SYMMETRIC = {
    "isinstance",
    "min",
    "max",
    "minimum",
    "maximum",
    "promote_types",
    "equal",
    "allclose",
    "array_equal",
    "add",
}
SPEAKS = {"Published", "warn", "print", "echo", "say", "debug", "info", "warning", "log", "TypeVar", "cast", "say_once"}


@dataclass(frozen=True)
class Mutant:
    """One fault: bytes `start` to `end` of a file become `text`."""

    file: str  # within src/opsin
    line: int
    kind: str
    start: int
    end: int
    before: str
    text: str
    statement: bool  # no expression
    called: bool  # not while the module is imported, as defaults and constants are
    rank: str  # sorts mutants at random, by the seed, and alike when other lines change

    @property
    def name(self) -> str:
        """What a person reads and a command takes: the file, the line, the kind and the change."""
        return f"{self.file}:{self.line} {self.kind}: {_short(self.before)} -> {_short(self.text)}"

    def apply(self, source: bytes) -> bytes:
        """The file's source with this fault; lines keep their numbers."""
        return _replace(source, self.start, self.end, self.text)


def watched(source: bytes, calls: Iterable[tuple[Mutant, str]]) -> bytes:
    """A file's source, unchanged but for a call before the place of each of its mutants. Places may lie in another."""
    inserted = []
    for mutant, call in calls:
        head, tail = (f"{call}; ", "") if mutant.statement else (f"({call}, (", "))[1]")  # a tuple needs parentheses
        size = mutant.end - mutant.start
        # From the end of the file to its begin; where two meet, what is inserted last comes first.
        inserted += [(mutant.start, 1, -size, not mutant.statement, head), (mutant.end, 0, size, False, tail)]
    for at, _, _, _, text in sorted(inserted, reverse=True):
        source = source[:at] + text.encode() + source[at:]
    return source


def _short(text: str) -> str:
    return " ".join(text.split())


def _replace(source: bytes, start: int, end: int, text: str) -> bytes:
    lines = source[start:end].count(b"\n")
    if lines and text.endswith(")"):
        text = text[:-1] + "\n" * lines + ")"
    return source[:start] + text.encode() + source[end:]


@dataclass(frozen=True)
class Change:
    """A kind of fault at a node: the node whose text is replaced, and by what."""

    kind: str
    node: ast.AST
    text: str


def changes(node: ast.AST) -> Iterator[Change]:
    """Every fault that begins at this node itself."""
    for kind in (_operators, _conditions, _constants, _calls, _statements, _slices):
        yield from kind(node)


def _other(node: ast.AST, **values: object) -> str:
    changed = copy.copy(node)
    for name, value in values.items():
        setattr(changed, name, value)
    return f"({ast.unparse(changed)})"


def _operators(node: ast.AST) -> Iterator[Change]:
    match node:
        case ast.Compare(ops=[first, *rest]):
            yield Change("comparison", node, _other(node, ops=[COMPARISONS[type(first)](), *rest]))
        case ast.BinOp(op=op) if type(op) in ARITHMETIC and not _text_or_type(node):
            yield Change("arithmetic", node, _other(node, op=ARITHMETIC[type(op)]()))
        case ast.BoolOp(op=op):
            yield Change("logic", node, _other(node, op=ast.Or() if isinstance(op, ast.And) else ast.And()))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield Change("not", node, _other(operand))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            yield Change("sign", node, _other(operand))


def _text_or_type(node: ast.BinOp) -> bool:
    for side in (node.left, node.right):
        if isinstance(side, ast.JoinedStr) or (isinstance(side, ast.Constant) and not _number(side.value)):
            return True
    named = [side for side in (node.left, node.right) if isinstance(side, ast.Name | ast.Attribute)]
    return isinstance(node.op, ast.BitOr) and any(ast.unparse(side).split(".")[-1][0].isupper() for side in named)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _conditions(node: ast.AST) -> Iterator[Change]:
    if isinstance(node, ast.If | ast.IfExp):
        for text in ("(False)", "(True)"):
            yield Change("condition", node.test, text)
    if isinstance(node, ast.comprehension) and node.ifs:
        yield Change("condition", node.ifs[0], "(True)")


def _constants(node: ast.AST) -> Iterator[Change]:
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield Change("flag", node, f"({not node.value})")
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield Change("constant", node, f"({node.value + 1!r})")


def _calls(node: ast.AST) -> Iterator[Change]:
    if not isinstance(node, ast.Call):
        return
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in OPPOSITES:
        func = copy.copy(node.func)
        setattr(func, "attr" if isinstance(func, ast.Attribute) else "id", OPPOSITES[name])
        yield Change("opposite", node, _other(node, func=func))
    if (
        len(node.args) >= 2
        and name not in SYMMETRIC
        and not any(isinstance(argument, ast.Starred) for argument in node.args[:2])
    ):
        yield Change("swap", node, _other(node, args=[node.args[1], node.args[0], *node.args[2:]]))
    for place, keyword in enumerate(node.keywords):
        if keyword.arg is not None:
            yield Change("keyword", node, _other(node, keywords=node.keywords[:place] + node.keywords[place + 1 :]))


def _statements(node: ast.AST) -> Iterator[Change]:
    match node:
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield Change("return", value, "(None)")
        case ast.Expr(value=ast.Call(func=ast.Attribute())):
            yield Change("deletion", node, "pass")
        case ast.AugAssign(op=op, value=value) if type(op) in ARITHMETIC and not isinstance(
            value, ast.List | ast.ListComp
        ):
            changed = copy.copy(node)
            changed.op = ARITHMETIC[type(op)]()
            yield Change("update", node, ast.unparse(changed))
        case ast.Continue():
            yield Change("loop", node, "break")
        case ast.Break():
            yield Change("loop", node, "continue")


def _slices(node: ast.AST) -> Iterator[Change]:
    if isinstance(node, ast.Slice):
        for bound in (node.lower, node.upper):
            if bound is not None:
                yield Change("slice", bound, f"({ast.unparse(bound)} + 1)")
                yield Change("slice", bound, "(None)")


def running(node: ast.AST, called: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """The nodes below one whose faults could be seen, and whether each runs in a call, not while a module is imported.

    Neither what speaks is among them nor what only type checkers read.
    """
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_comment"):
            continue
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        inside = name == "body" if function and not called else called
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or _speaks(child):
                continue
            yield child, inside
            yield from running(child, inside)


def _speaks(node: ast.AST) -> bool:
    match node:
        case ast.Raise() | ast.Assert() | ast.JoinedStr() | ast.Import() | ast.ImportFrom():
            return True
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.If(test=test) if "TYPE_CHECKING" in ast.unparse(test):
            return True
        case ast.Call(func=func):
            name = func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")
            return name in SPEAKS
    return False


def of_file(path: Path, package: Path, seed: int) -> list[Mutant]:
    """All mutants of a file, each with its rank by the seed."""
    source = path.read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found, seen = [], {}
    for node, called in running(ast.parse(source)):
        for change in changes(node):
            at = change.node
            line, end_line, end_column = at.lineno, at.end_lineno, at.end_col_offset  # type: ignore[attr-defined]
            start, end = starts[line - 1] + at.col_offset, starts[end_line - 1] + end_column  # type: ignore[attr-defined]
            before, name = source[start:end].decode(), path.relative_to(package).as_posix()
            key = (name, change.kind, source.splitlines()[line - 1].decode(), before, change.text)
            seen[key] = seen.get(key, 0) + 1
            rank = hashlib.sha256(repr((seed, key, seen[key])).encode()).hexdigest()
            statement = isinstance(at, ast.stmt)
            found.append(Mutant(name, line, change.kind, start, end, before, change.text, statement, called, rank))
    return found


def sample(package: Path, folders: list[str], each: int, seed: int) -> list[Mutant]:
    """`each` mutants of every folder, all kinds in turn, at most one of a line."""
    chosen: list[Mutant] = []
    for folder in folders:
        ranked = sorted(
            (mutant for path in sorted((package / folder).rglob("*.py")) for mutant in of_file(path, package, seed)),
            key=lambda mutant: mutant.rank,
        )
        kinds: dict[str, list[Mutant]] = {}
        for mutant in ranked:
            kinds.setdefault(mutant.kind, []).append(mutant)
        taken: dict[tuple[str, int], Mutant] = {}
        while len(taken) < each and any(kinds.values()):
            for kind in sorted(kinds):
                while kinds[kind]:
                    mutant = kinds[kind].pop(0)
                    if (mutant.file, mutant.line) not in taken:
                        taken[mutant.file, mutant.line] = mutant
                        break
        chosen += list(taken.values())[:each]
    return chosen
