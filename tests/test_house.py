"""The house rules that can be checked: floors, sizes, names, docstrings, and nothing of one machine in the files."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
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
    ["files", "checks", "image_files", "lazy_modules", "old_names", "progress", "version", "yaml_text"],
    ["structures", "rooms", "downloading", "schemes"],
    ["objects"],
    ["registry", "hub"],
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
LISTS = {
    "opsin",
    "opsin.rooms",
    "opsin.old_names",
    "opsin.schemes",
}  # their strings say what there is; nothing of it is imported for them


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
                else:
                    yield str(node.module)


def running(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that ever run, those inside functions too; not those for type checkers."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from running(child)


def named(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """The modules of opsin that strings name, as "opsin.package.module:object" or without the object."""
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found = re.fullmatch(r"(opsin(?:\.\w+)+)(?::\w+)?", node.value)
            if found and found[1] in NAMES:
                yield found[1]


@cache
def arrows(name: str) -> frozenset[str]:
    """What a module imports or names, wherever in it. The list of built-in rooms and of public verbs are no arrows."""
    nodes = list(running(tree(NAMES[name])))
    strings = () if name in LISTS else named(iter(nodes))
    return frozenset({*imports(iter(nodes)), *strings} - {name})


def test_every_room_has_a_floor() -> None:
    assert {room(name) for name in NAMES} <= FLOOR.keys()


def test_imports_run_downward() -> None:
    wrong = []
    for name in NAMES:
        own = room(name)
        for target in arrows(name):
            other = room(target)
            if own != other and (other == "scratch" or ((own, other) not in NEIGHBOURS and FLOOR[other] >= FLOOR[own])):
                wrong.append(f"{name} imports {target}")
    assert not wrong


def test_no_import_circle() -> None:
    # With what only type checkers import, who sees a circle reads it as one. opsin itself is the list of public names.
    graph = {name: arrows(name) | {*imports(ast.walk(tree(path)))} - {name} for name, path in NAMES.items()}
    del graph["opsin"]
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


def function_lines(path: Path, node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function, its signature too; less what is a list by its nature.

    That are the options of a command, which carry their help, and the keyword-only parameters of a constructor.
    """
    first = node.lineno
    if path.parent == PACKAGE / "cli":
        first = node.body[0].lineno
    listed = node.args.kwonlyargs if node.name == "__init__" else []
    return (node.end_lineno or node.lineno) - first + 1 - len({argument.lineno for argument in listed})


def test_files_and_functions_are_short() -> None:
    long = [f"{p}: {n} lines" for p in CODE if (n := len(p.read_text(encoding="utf-8").splitlines())) > 600]
    for path in CODE:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (n := function_lines(path, node)) > 50:
                long.append(f"{path}:{node.lineno} {node.name}: {n} lines")
    assert not long


# What opens, trains, predicts, evaluates, exports and explains knows no task, no kind of truth and no network.
HOUSE_ROOMS = ("engine", "data", "analyze", "cli", "registry", "structures")
HOUSE = [path for path in MODULES if room(module_name(path)) in HOUSE_ROOMS]
TASKS = re.compile(rf"\b({'|'.join(name for name in TASK_ROOMS if (PACKAGE / name).is_dir())})\b")
WORDS = {"read", "render", "sequence", "track"}  # tasks whose names are words and methods too, or tags of an XML
KINDS = re.compile(r"\b(ClassLabels|Boxes|JointBoxes|Truth|Backbone|Detector|RCNN|FasterRCNN|RPN|YOLO\w*)\b")


def docstrings(path: Path) -> set[int]:
    """The places of docstrings among the nodes of a file."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False):
            found.add(id(node.body[0].value))  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("path", [*HOUSE, PACKAGE / "rooms.py"], ids=lambda path: module_name(path))
def test_the_house_knows_no_task(path: Path) -> None:
    wrong, spoken = [], docstrings(path)
    for node in running(tree(path)):
        text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
        tasks = {*TASKS.findall(text)} - WORDS
        if text and id(node) not in spoken and tasks and module_name(path) != "opsin.rooms":
            wrong.append(f"{node.lineno}: the string {text!r}")  # type: ignore[attr-defined]
        if isinstance(node, ast.ImportFrom) and TASKS.search(node.module or "") and "opsin." in str(node.module):
            wrong.append(f"{node.lineno}: imports {node.module}")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id == "hasattr":
                wrong.append(f"{node.lineno}: hasattr")
            if node.func.id == "isinstance" and KINDS.search(ast.unparse(node.args[1])):
                wrong.append(f"{node.lineno}: {ast.unparse(node)}")
    assert not wrong


def test_a_room_is_declared_without_torch() -> None:
    """And so the command's help, which reads all of them, needs none."""
    code = "import sys, opsin.rooms; opsin.rooms.all_rooms(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


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
    inside = [("data", name) for name in ("formats", "transforms", "text_engine")]
    assert not [parts for parts in deep if parts[:2] not in inside or len(parts) > 3]


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
