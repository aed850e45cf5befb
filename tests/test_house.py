"""The house rules that can be checked: floors, sizes, names, docstrings, and nothing of one machine in the files."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "opsin"
MODULES = sorted(PACKAGE.rglob("*.py"))
CODE = [*MODULES, *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "benchmarks").rglob("*.py"))]

TASK_ROOMS = ["classify", "detect", "segment", "embed", "landmark", "read", "sequence", "track", "adapt", "render"]
# From the ground up. A room imports itself and lower floors; within a floor only what `NEIGHBOURS` allows.
FLOORS = [
    ["scratch"],  # stands alone, on NumPy; nothing imports it
    ["errors"],
    ["files", "checks"],
    ["structures", "registry", "downloading"],
    ["ops"],
    ["nn", "losses", "optim"],
    ["backbones", "necks"],
    ["data", "engine"],
    TASK_ROOMS,
    ["analyze", "serve"],
    ["__init__", "cli", "__main__"],
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
NEIGHBOURS = {("engine", "data"), ("__main__", "cli")}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


NAMES = {module_name(path): path for path in MODULES}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """The modules of opsin that some syntax nodes import, `from opsin import data` as opsin.data."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "opsin")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "opsin":
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in NAMES:
                    yield inner
                elif inner != "opsin.__version__":  # a string, there before anything is imported
                    yield str(node.module)


def at_import_time(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when their module is imported: not those inside functions, nor those for type checkers."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from at_import_time(child)


def test_every_room_has_a_floor() -> None:
    assert {room(name) for name in NAMES} <= FLOOR.keys()


def test_imports_run_downward() -> None:
    wrong = []
    for name, path in NAMES.items():
        own = room(name)
        for target in imports(ast.walk(tree(path))):
            other = room(target)
            if own != other and (other == "scratch" or ((own, other) not in NEIGHBOURS and FLOOR[other] >= FLOOR[own])):
                wrong.append(f"{name} imports {target}")
    assert not wrong


def test_no_import_circle() -> None:
    graph = {name: set(imports(at_import_time(tree(path)))) - {name} for name, path in NAMES.items()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"import circle: {' -> '.join([*path[path.index(name) :], name])}"
        if name not in done:
            for target in sorted(graph.get(name, ())):
                visit(target, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_relative_imports_are_not_used() -> None:
    found = [p for p in MODULES for n in ast.walk(tree(p)) if isinstance(n, ast.ImportFrom) and n.level]
    assert not found


def test_files_and_functions_are_short() -> None:
    long = [f"{p}: {n} lines" for p in CODE if (n := len(p.read_text(encoding="utf-8").splitlines())) > 600]
    for path in CODE:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                # From the body on: the signature of a command lists its options and their help.
                lines = (node.end_lineno or node.lineno) - node.body[0].lineno + 1
                if lines > 50:
                    long.append(f"{path}:{node.lineno} {node.name}: {lines} lines")
    assert not long


def test_names_say_what_a_thing_is() -> None:
    empty = {"utils", "util", "core", "base", "common", "misc", "helpers"}
    wrong = [str(p) for p in CODE if empty & {part.lower() for part in p.relative_to(ROOT).with_suffix("").parts}]
    pattern = re.compile(r"^Base[A-Z]|Mixin$|Manager$")
    for path in MODULES:
        classes = (node.name for node in ast.walk(tree(path)) if isinstance(node, ast.ClassDef))
        wrong += [f"{path}: {name}" for name in classes if pattern.search(name)]
    assert not wrong


def test_folders_are_two_levels_deep_and_three_in_data() -> None:
    deep = [p.relative_to(PACKAGE).parts for p in MODULES if len(p.relative_to(PACKAGE).parts) > 2]
    assert not [
        parts for parts in deep if parts[:2] not in (("data", "formats"), ("data", "transforms")) or len(parts) > 3
    ]


def _undocumented(path: Path) -> Iterator[str]:
    if not ast.get_docstring(tree(path)):
        yield "the module"
    for node in tree(path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            decorators = " ".join(ast.unparse(decorator) for decorator in node.decorator_list)
            # A registered builder's published facts, and a command line's own help, say what they are.
            if not re.search(r"register|\.callback", decorators) and not ast.get_docstring(node):
                yield node.name


@pytest.mark.parametrize("path", MODULES, ids=lambda path: module_name(path))
def test_everything_public_has_a_docstring(path: Path) -> None:
    assert not list(_undocumented(path))


def test_nothing_of_one_machine_is_in_the_files() -> None:
    machine = re.compile(
        "|".join(rf"(?<![\w.]){folder}/" for folder in ("/work", "/home/\\w+", "/root", "/Users", "/mnt"))
    )
    texts = [
        *CODE,
        *(ROOT / "docs").rglob("*.md"),
        *PACKAGE.rglob("*.yaml"),
        *PACKAGE.rglob("*.j2"),
        *ROOT.glob("*.md"),
    ]
    texts += [ROOT / name for name in ("Makefile", "pyproject.toml", "mkdocs.yml", "constraints.txt", ".ci/run")]
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in texts
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if machine.search(line)
    ]
    assert not found
