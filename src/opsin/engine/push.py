"""Share a run: the folder that a hub takes, with a card, and its upload where that is asked for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opsin import errors, objects
from opsin.data.members import Members
from opsin.engine.callbacks import read_rows
from opsin.engine.checkpoint import MEMBERS, as_tensor, read_model, read_tensors, write_tensors
from opsin.engine.model_card import without_paths, write_card
from opsin.engine.recipe import load_recipe
from opsin.engine.report import draw_losses
from opsin.engine.run import RunFolder, missing_run
from opsin.errors import InputError, JobError
from opsin.files import atomic
from opsin.schemes import SCHEMES

_FILES = ("model.safetensors", "recipe.yaml", "README.md", "loss.png")


@dataclass(frozen=True)
class Pushed:
    """A folder for a hub. files: their names. address: where it was uploaded; None where it was not."""

    folder: Path
    files: tuple[str, ...]
    address: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"folder": str(self.folder), "files": list(self.files), "address": self.address}


def push(
    run: str | Path,
    out: str | Path | None = None,
    *,
    to: str | None = None,
    licence: str | None = None,
    private: bool = False,
) -> Pushed:
    """Write the folder of a run for a model hub: its model, its recipe, a card, and a chart of its losses.

    run: a run folder or a model.safetensors. out: the folder, `hub` within the run if None. to: owner/name of the
    Hugging Face hub, where it is uploaded with the user's own login of huggingface_hub; nothing is uploaded without.
    licence: its identifier there, such as apache-2.0. private: of a repository that is new. Paths of this machine are
    shortened to their last part. Raises InputError for what is no run
    and for a network that was given as an object, and JobError where the upload fails.
    """
    path = Path(run)
    if not path.exists():
        raise missing_run(path)
    upload = None if to is None else _uploader(to)
    file = path / "model.safetensors" if path.is_dir() else path
    _check_network(path, file)
    saved = read_model(path)
    tensors, metadata = read_tensors(file)
    taken: set[str] = set()
    described = without_paths(json.loads(metadata["opsin"]), taken)
    recipe = load_recipe(without_paths(saved.recipe.model_dump(mode="json"), taken))
    for one in sorted(taken):
        errors.say(f"{one} is shared as {without_paths(one, set())}: paths of this machine are left out")
    if licence is None:
        errors.say("the card says license: unknown; add --license, such as apache-2.0, if others may use the model")
    folder = _folder(Path(out) if out is not None else file.parent / "hub")
    if saved.members is not None:  # names of files are nobody else's business
        tensors[MEMBERS] = as_tensor(Members.unpack(saved.members).nameless().pack())
    write_tensors(folder / "model.safetensors", tensors, described)
    preview = _draw(RunFolder(file.parent), folder)
    name = to or f"OWNER/{file.resolve().parent.name}"
    card = write_card(saved, recipe, name=name, licence=licence or "unknown", preview=preview)
    for place, text in (("recipe.yaml", recipe.to_yaml()), ("README.md", card)):
        with atomic(folder / place) as temporary:
            temporary.write_text(text, encoding="utf-8")
    files = tuple(one for one in _FILES if (folder / one).exists())
    address = None if upload is None else _upload(upload, str(to), folder, files, private)
    return Pushed(folder, files, address)


def _check_network(run: Path, file: Path) -> None:
    """Raise InputError for a run whose network is an object: those who took the run could not build it."""
    if not file.is_file():
        return  # reading the model says what is wrong
    text = json.loads(read_tensors(file)[1].get("opsin", "{}"))
    name = text["recipe"]["model"]["name"] if "recipe" in text else ""
    if objects.is_object(name):
        kind = objects.short_name(name)
        raise InputError(
            f"{run} cannot be shared: its network was given as an object, and no file holds the code of {kind}; train "
            f"it by a name, opsin.register_model(NAME, task=...)({kind}) in a module that --import names"
        )


def _folder(folder: Path) -> Path:
    """The folder to write, made. Raises InputError for one that holds something else."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        others = sorted(one.name for one in folder.iterdir() if one.name not in _FILES)
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror or error}; choose another --out") from None
    if others:
        raise InputError(f"{folder} holds {others[0]}, which is of something else; choose another --out")
    return folder


def _draw(run: RunFolder, folder: Path) -> str | None:
    """A chart of the losses, where the run has written them. No images of the data: they may not be the user's."""
    chart = draw_losses(read_rows(run.metrics)) if run.metrics.exists() else None
    if chart is None:
        (folder / "loss.png").unlink(missing_ok=True)
        return None
    with atomic(folder / "loss.png") as temporary:
        chart.save(temporary, format="png")
    return "loss.png"


def _uploader(to: str) -> Any:
    """What uploads, of a user who is logged in. Raises InputError before anything is written."""
    SCHEMES["hf"].load("runs")  # the line that names the package, where it is not there
    from huggingface_hub import HfApi, get_token

    from opsin import hub

    name = hub.HubName.parse(to)
    if name.revision or name.file:
        raise InputError(f"--to {to}: expected owner/name")
    if hub.is_kept_offline():
        raise InputError(f"offline, so nothing is uploaded to {to}; leave --to out to write the folder alone")
    if get_token() is None:
        raise InputError(f"--to {to} needs a login of the hub: run `hf auth login`, or set HF_TOKEN")
    return HfApi(library_name="opsin")


def _upload(api: Any, to: str, folder: Path, files: tuple[str, ...], private: bool) -> str:
    from huggingface_hub.errors import HfHubHTTPError

    from opsin import hub

    try:
        with hub.quiet_bars():
            made: Any = api.create_repo(to, exist_ok=True, **({"private": True} if private else {}))
            api.upload_folder(
                repo_id=to, folder_path=str(folder), allow_patterns=list(files), commit_message="Upload a run of opsin"
            )
    except (HfHubHTTPError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise JobError(f"{to} could not be uploaded: {reason}; {folder} is written") from None
    return str(made)


def use_lines(pushed: Pushed, to: str | None, run: str | Path) -> list[str]:
    """What was done and what can be done next, for people."""
    lines: list[str] = [f"wrote {pushed.folder}: {', '.join(pushed.files)}"]
    if pushed.address is None:
        return [*lines, f"look at README.md; to upload it: opsin push {run} --to OWNER/NAME"]
    return [*lines, f"uploaded to {pushed.address}", f"to use it: opsin predict hf:{to} photo.jpg"]
