"""`opsin gallery`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer


def gallery(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The gallery, FILE.safetensors.", show_default=False)],
    run: Annotated[
        Path | None,
        typer.Option(
            "--run", metavar="RUN", help="The model whose embeddings it holds; with --add.", show_default=False
        ),
    ] = None,
    add: Annotated[
        list[str] | None,
        typer.Option("--add", metavar="FOLDER", help="Add the people of a folder by identity. Repeatable."),
    ] = None,
    remove: Annotated[
        list[str] | None, typer.Option("--remove", metavar="NAME", help="Remove a person. Repeatable.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")] = False,
) -> None:
    """Make a gallery of people, add and remove some, and list who is in it; `opsin predict RUN --gallery` uses it."""
    from opsin.embed.gallery import read_gallery
    from opsin.engine.predict import load
    from opsin.errors import InputError, printable

    if file.suffix.lower() != ".safetensors":
        raise InputError(f"a gallery is saved as a safetensors file; {file} has to end in .safetensors")
    if not file.exists() and not add:
        raise InputError(f"no gallery at {file}; make it: opsin gallery {file} --run RUN --add FOLDER")
    held = read_gallery(file) if file.exists() else None
    if add:
        if run is None:
            raise InputError("--add embeds images with the model of the gallery; say which it is, with --run RUN")
        predictor: Any = load(run)
        if predictor.recipe.task != "embed":
            raise InputError(f"{run} is of the task {predictor.recipe.task}; a gallery is made by a run of embed")
        for source in add:
            new = predictor.embed_people(source)
            if held is not None:
                held.check_model(new.model, file)
            held = new if held is None else held.joined(new)
    assert held is not None
    for name in remove or []:
        held = held.without(name)
    if add or remove:
        held.save(file)
    if as_json:
        found = {"file": str(file), "made_by": held.made_by, "people": held.people, "images": len(held)}
        print(json.dumps(found, indent=2))
        return
    print(printable(f"{file}: {len(held.people):,} people, {len(held):,} images, made by {held.made_by}"))
    for name, count in held.people.items():
        print(printable(f"  {name}  {count:,}"))
