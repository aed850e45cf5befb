"""The card of a shared model: a README.md that says what it is, what it scores, what it saw, and how it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from opsin import rooms
from opsin.engine.checkpoint import Saved
from opsin.engine.recipe import Recipe
from opsin.schemes import split_scheme
from opsin.version import __version__

_CLASSES = 20  # that the card names before it counts
_METRICS = 5  # in its front matter, of those that stand in its table


def write_card(saved: Saved, recipe: Recipe, *, name: str, licence: str, preview: str | None = None) -> str:
    """Markdown with front matter, as the Hugging Face hub reads it.

    recipe: as it is shared. name: owner/name, where it will lie. licence: its identifier on the hub. preview: the file
    of an image beside the card.
    """
    scores = _scores(saved)
    front = yaml.safe_dump(_front_matter(saved, recipe, name, licence, scores), sort_keys=False, allow_unicode=True)
    rows = [f"| {split} | {name.replace('_', ' ')} | {text} |" for split, name, _, text in scores]
    table = ["| split | metric | value |", "|---|---|---|", *rows] if rows else ["It has not been evaluated."]
    code = f'import opsin\n\nmodel = opsin.load("hf:{name}")\nprint(model.predict("photo.jpg"))'
    parts = [
        f"---\n{front}---",
        f"# {recipe.model.name} trained on {_data_name(recipe)}",
        _what(saved, recipe),
        *([f"![Loss over the training]({preview})"] if preview else []),
        "## Results",
        "\n".join(table),
        "## How to use it",
        f"`pip install 'opsin[{','.join(['hub', *_extras(recipe)])}]'`{_imports(recipe)}, then in Python",
        f"```python\n{code}\n```",
        "or in a shell",
        f"```sh\nopsin predict hf:{name} photo.jpg\n```",
        "## Data",
        _data(recipe),
        "## Recipe",
        "What it was trained with; `opsin train recipe.yaml --data SOURCE` trains it again.",
        f"```yaml\n{recipe.to_yaml()}```",
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(
    saved: Saved, recipe: Recipe, name: str, licence: str, scores: list[tuple[str, str, float, str]]
) -> dict[str, Any]:
    room = rooms.find_room(recipe.task)
    found: dict[str, Any] = {"license": licence, "library_name": "opsin"}
    if room.hub_tag is not None:
        found["pipeline_tag"] = room.hub_tag
    found["tags"] = list(dict.fromkeys(["opsin", recipe.task, *_networks(recipe)]))
    data = _data_name(recipe)
    of_hub = split_scheme(recipe.data.source)
    if of_hub is not None and of_hub[0].runs is not None:  # a hub knows its own data sets alone
        found["datasets"] = [data]
    if scores:
        found["metrics"] = list(dict.fromkeys(metric for _, metric, _, _ in scores))[:_METRICS]
        found["model-index"] = [{"name": name.rpartition("/")[2], "results": _results(room, data, scores)}]
    return found


def _results(room: rooms.Room, data: str, scores: list[tuple[str, str, float, str]]) -> list[dict[str, Any]]:
    """One a split, as the hub lists what a model scores."""
    return [
        {
            "task": {"type": room.hub_tag or room.task},
            "dataset": {"name": data, "type": data.lower(), "split": split},
            "metrics": [{"type": m, "name": m.replace("_", " "), "value": v} for s, m, v, _ in scores if s == split],
        }
        for split in dict.fromkeys(split for split, _, _, _ in scores)
    ]


def _scores(saved: Saved) -> list[tuple[str, str, float, str]]:
    """Of each metric that was saved: its split, its name, its value, and that for people."""
    room = rooms.evaluating_room(rooms.find_room(saved.recipe.task))
    found = []
    for key, value in saved.metrics.items():
        split, _, name = key.partition("_")
        found.append((split, name, value, room.format(name, value)))
    return found


def _what(saved: Saved, recipe: Recipe) -> str:
    name, *backbone = _networks(recipe)
    inside = f" with the backbone `{backbone[0]}`" if backbone else ""
    facts = [f"`{name}`{inside}, for the task {recipe.task}"]
    if (prepared := saved.preprocessing) is not None:
        facts.append(f"input {prepared.channels}x{prepared.size[0]}x{prepared.size[1]}")
    if saved.classes:
        more = f" and {len(saved.classes) - _CLASSES} more" if len(saved.classes) > _CLASSES else ""
        facts.append(f"{len(saved.classes)} classes: {', '.join(saved.classes[:_CLASSES])}{more}")
    text = "; ".join(facts) + f". Trained with [opsin](https://pypi.org/project/opsin/) {__version__}"
    first = recipe.train.init or recipe.model.weights or recipe.model.backbone_weights
    return f"{text}, from the weights {first}." if first else f"{text}, from random weights."


def _networks(recipe: Recipe) -> list[str]:
    """The model's name, and that of its backbone where the recipe names one."""
    backbone = recipe.model.options.get("backbone")
    return [recipe.model.name, *([backbone] if isinstance(backbone, str) else [])]


def _extras(recipe: Recipe) -> list[str]:
    """The extras of opsin that its networks need, such as timm."""
    found = [split_scheme(name) for name in _networks(recipe)]
    return list(dict.fromkeys(one[0].extra for one in found if one is not None and one[0].extra))


def _imports(recipe: Recipe) -> str:
    """The packages without which its parts are not known, in words."""
    return f" and the package{'s' * (len(recipe.imports) > 1)} {', '.join(recipe.imports)}" if recipe.imports else ""


def _data(recipe: Recipe) -> str:
    section = recipe.data
    parts = f"{section.val_fraction:.0%} for validation, {section.test_fraction:.0%} for the test"
    return (
        f"{section.source or 'Not stated'}. Where it has no splits of its own: {parts}, divided by seed "
        f"{section.split_seed}."
    )


def _data_name(recipe: Recipe) -> str:
    """The data in a few words: without its scheme, and of a path its last part."""
    found = split_scheme(recipe.data.source)
    if found is not None:
        return found[1].partition("@")[0]
    return recipe.data.source.rstrip("/").rpartition("/")[2] or "its data"


def without_paths(value: Any, taken: set[str]) -> Any:
    """Plain values in which every path from the root of a file system is its last part. taken: what they were."""
    if isinstance(value, Mapping):
        return {key: without_paths(one, taken) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(one, taken) for one in value]
    if isinstance(value, str) and (value.startswith(("/", "~/", "\\\\")) or value[1:3] in (":\\", ":/")):
        taken.add(value)
        return value.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return value
