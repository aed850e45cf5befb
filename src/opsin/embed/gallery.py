"""A gallery: the embeddings of people, or of whatever else has an identity, that images are held against.

It is a file that knows which model made it: embeddings of two models cannot be compared. Nothing in it can run code.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from opsin.engine.checkpoint import CRITERION, read_tensors
from opsin.errors import InputError, unknown
from opsin.files import atomic, load_json

_KEY, _VERSION = "opsin.gallery", 1


@dataclass(frozen=True)
class Gallery:
    """embeddings: (N, D) float32, as they are compared. names, files: of each, who it is and what it was made of.

    model: the digest of the model that made it, see `fingerprint`; made_by: what that was called.
    """

    embeddings: Tensor
    names: Sequence[str]
    files: Sequence[str]
    model: str
    made_by: str

    def __len__(self) -> int:
        return len(self.names)

    @property
    def people(self) -> dict[str, int]:
        """Of each name how many images there are, sorted by name."""
        return dict(sorted(Counter(self.names).items()))

    def joined(self, other: Gallery) -> Gallery:
        """With those of another of the same model. An image of a name and file that are there already is replaced."""
        other.check_model(self.model, "these images")
        new = set(zip(other.names, other.files, strict=True))
        kept = self._of([one not in new for one in zip(self.names, self.files, strict=True)])
        return replace(
            kept,
            embeddings=torch.cat([kept.embeddings, other.embeddings]),
            names=[*kept.names, *other.names],
            files=[*kept.files, *other.files],
        )

    def without(self, name: str) -> Gallery:
        """Without a person. Raises InputError with the nearest names where there is nobody of this name."""
        if name not in self.people:
            raise unknown("name of the gallery", name, list(self.people))
        return self._of([one != name for one in self.names])

    def _of(self, kept: Sequence[bool]) -> Gallery:
        places = [place for place, keep in enumerate(kept) if keep]
        return replace(
            self,
            embeddings=self.embeddings[torch.tensor(places, dtype=torch.long)],
            names=[self.names[place] for place in places],
            files=[self.files[place] for place in places],
        )

    def check_model(self, model: str, where: str | Path) -> None:
        """Raise InputError unless this model made it."""
        if self.model != model:
            raise InputError(
                f"{where} was made by another model ({self.made_by}), whose embeddings mean something else; make it "
                "anew with this one: opsin gallery NEW --run RUN --add FOLDER"
            )

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        described = {
            "version": _VERSION,
            "model": self.model,
            "made_by": self.made_by,
            "names": list(self.names),
            "files": list(self.files),
        }
        with atomic(path) as temporary:
            tensors = {"embeddings": self.embeddings.float().contiguous()}
            save_file(tensors, temporary, metadata={_KEY: json.dumps(described)})


def read_gallery(path: Path) -> Gallery:
    """A gallery of a file. Raises InputError for what is none, or damaged."""
    tensors, metadata = read_tensors(path)
    if _KEY not in metadata or "embeddings" not in tensors:
        raise InputError(f"{path} is no gallery; make one with opsin gallery {path.stem} --run RUN --add FOLDER")
    try:
        described: dict[str, Any] = load_json(metadata[_KEY])
        if described["version"] != _VERSION:
            raise InputError(f"{path} is a gallery of a later opsin; update opsin")
        names, files = ([str(one) for one in described[key]] for key in ("names", "files"))
        found = Gallery(tensors["embeddings"], names, files, str(described["model"]), str(described["made_by"]))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path} is a damaged gallery: {type(error).__name__}: {error}; make it anew") from None
    embeddings = found.embeddings
    if embeddings.ndim != 2 or not len(embeddings) == len(names) == len(files) or embeddings.dtype != torch.float32:
        raise InputError(f"{path} is a damaged gallery: {len(names)} names of {tuple(embeddings.shape)}; make it anew")
    if not bool(torch.isfinite(embeddings).all()):
        raise InputError(f"{path} is a damaged gallery: its embeddings are not finite; make it anew")
    return found


def fingerprint(predictor: Any) -> str:
    """A digest of all that an embedding follows from: the network's weights and its preprocessing."""
    digest = hashlib.sha256()
    prepared = predictor.preprocessing
    facts = {"name": predictor.recipe.model.name, "preprocessing": None if prepared is None else prepared.to_dict()}
    digest.update(json.dumps(facts, sort_keys=True).encode())
    for name, tensor in sorted(predictor.model.state_dict().items()):
        if not name.startswith(CRITERION):
            value = tensor.detach().cpu().contiguous()
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]
