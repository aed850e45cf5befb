"""The reference has every public function and class, the site needs no network, and the words are the field's."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import opsin

pytestmark = pytest.mark.rendered  # and so with all of its functions as they are

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SOURCE = ROOT / "src" / "opsin"
PACKAGES = (
    "adapt",
    "analyze",
    "backbones",
    "classify",
    "data",
    "detect",
    "embed",
    "engine",
    "landmark",
    "losses",
    "necks",
    "nn",
    "ops",
    "optim",
    "read",
    "render",
    "scratch",
    "segment",
    "sequence",
    "serve",
    "track",
)
MODULES = ("downloading", "registry", "rooms", "structures")

# Words that a stranger has to guess at, each with what stands for it in the field.
ODD = {
    r"\bjudg(e|es|ed|ing|ement|ment)s?\b": "evaluate, measure",
    r"\bthe doctor('s)?\b": "the data check, `opsin data`",
    r"\bpart(ed)? by [`|\\]": "separated by",
    r"\blooks away\b": "ignores, has less weight on",
    r"\banswers? for (it|an? (truth|object)|the (truth|object))\b": "is matched to",
    r"\b(is|are|be|unless|being) told\b": "is given, by default",
    r"\bis said\b|\bsaid (once|at once|before|in a line)\b": "is printed, a line says",
    r"\bpictures?\b": "image",
}


def listed() -> Iterator[tuple[str, list[str] | None]]:
    """What the pages of the reference ask mkdocstrings for: a dotted name, and its members where only some are."""
    for page in sorted((DOCS / "reference").glob("*.md")):
        found = re.findall(r"^::: (\S+)\n((?: +.*\n)*)", page.read_text(encoding="utf-8"), re.MULTILINE)
        for name, options in found:
            members = re.search(r"members: \[(.*)\]", options)
            yield name, None if members is None else members[1].split(", ")


def in_reference() -> set[tuple[str, str]]:
    """(module, name) of every function and class that the reference has."""
    found: set[tuple[str, str]] = set()
    for name, members in listed():
        if (SOURCE.parent / name.replace(".", "/")).is_dir() or (
            SOURCE.parent / f"{name.replace('.', '/')}.py"
        ).is_file():
            module = importlib.import_module(name)
            offered = getattr(module, "__all__", None) or [key for key in vars(module) if not key.startswith("_")]
            named = [getattr(module, key) for key in (members if members is not None else offered)]
        else:
            module, _, key = name.rpartition(".")
            named = [getattr(importlib.import_module(module), key)]
        found |= {(getattr(one, "__module__", ""), getattr(one, "__name__", "")) for one in named}
    return found


def public(file: Path) -> Iterator[str]:
    """Functions and classes of a file, but for builders of models: those are in the tables of models, by name."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith("_"):
            continue
        if not any("register" in ast.unparse(one) for one in node.decorator_list):
            yield node.name


def test_every_public_function_and_class_is_in_the_reference() -> None:
    files = [path for name in PACKAGES for path in sorted((SOURCE / name).rglob("*.py"))]
    files += [SOURCE / f"{name}.py" for name in MODULES]
    found, missing, count = in_reference(), [], 0
    for file in files:
        module = ".".join(file.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")
        names = list(public(file))
        count += len(names)
        missing += [f"{module}.{name}" for name in names if (module, name) not in found]
    assert count > 1000
    assert not missing, f"add to docs/reference, as `::: MODULE` or in its `members:`: {', '.join(missing)}"


def test_every_verb_of_python_is_on_its_first_page() -> None:
    page = (DOCS / "reference" / "opsin.md").read_text(encoding="utf-8")
    for name in opsin.__all__:
        one = getattr(opsin, name)
        if callable(one):
            assert f"::: {one.__module__}.{one.__name__}\n" in page, name


def test_every_listed_name_has_a_docstring() -> None:
    # Without one mkdocstrings leaves it out without a word.
    for name, members in listed():
        for key in members or []:
            assert getattr(importlib.import_module(name), key).__doc__, f"{name}.{key}"


def test_the_site_needs_no_network_and_its_search_no_server() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    plugins = [next(iter(one)) if isinstance(one, dict) else one for one in settings["plugins"]]
    assert "offline" in plugins[plugins.index("search") :]  # after the search: it reads what that has written
    assert settings["theme"]["font"] is False and settings["use_directory_urls"] is False
    scripts = [*settings["extra"]["polyfills"], *settings.get("extra_javascript", []), *settings["extra_css"]]
    assert not [place for place in scripts if not (DOCS / place).is_file()]
    # Without a script of that name the plugin adds one from unpkg.com.
    assert any("iframe-worker" in place for place in settings["extra"]["polyfills"])


def test_the_home_page_has_what_the_readme_has() -> None:
    readme, home = (
        (place / name).read_text(encoding="utf-8") for place, name in ((ROOT, "README.md"), (DOCS, "index.md"))
    )
    parts = re.findall(r"^```[\s\S]*?^```$|^## .*$|^\| .*$|^- .*$", readme.replace("](docs/", "]("), re.MULTILINE)
    assert len(parts) > 20
    assert not [part for part in parts if part not in home and part != "## Documentation"]


def prose() -> Iterator[tuple[str, str]]:
    """What people read: pages, and the strings of the package that are no docstrings. (place, text)."""
    for page in [*DOCS.rglob("*.md"), *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md"))]:
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
            yield f"{page.relative_to(ROOT)}:{number}", line
    for file in SOURCE.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
        first = [node.body[0] for node in ast.walk(tree) if isinstance(node, documented) and node.body]
        docstrings = {id(node.value) for node in first if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            text = node.value if isinstance(node, ast.Constant) and id(node) not in docstrings else None
            if isinstance(text, str) and " " in text:  # no names of keys and options: earlier ones are kept
                yield f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}", text


def test_messages_and_pages_are_in_the_words_of_the_field() -> None:
    any_odd = re.compile("|".join(f"(?:{odd})" for odd in ODD))
    found = [(place, text) for place, text in prose() if any_odd.search(text) and "--pictures" not in text]
    # --pictures is the earlier name of a flag
    said = [
        f"say {ODD[odd]}: {place}: {text.strip()[:160]}" for odd in ODD for place, text in found if re.search(odd, text)
    ]
    assert not said, "\n".join(said)
