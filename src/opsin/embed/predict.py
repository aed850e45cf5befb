"""Embedders in use: the point that an image is, who it is of a gallery, and whether two images show the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from opsin import data
from opsin.data import Source
from opsin.data.images import UnreadableImage
from opsin.embed.answers import UNKNOWN, EmbedAnswer, PairAnswer
from opsin.embed.comparison import exact_distances
from opsin.embed.embedder import Embedder
from opsin.embed.face_points import FacePoints, read_points
from opsin.embed.gallery import Gallery, fingerprint, read_gallery
from opsin.embed.thresholds import Threshold
from opsin.embed.verification import describe_far
from opsin.engine.answers import Answer
from opsin.engine.checkpoint import Facts
from opsin.engine.inputs import is_video
from opsin.engine.predict import Predictor, describe_input
from opsin.engine.program import NormalizedNetwork, Program
from opsin.engine.recipe import Recipe
from opsin.errors import InputError, say
from opsin.objects import short_name
from opsin.progress import follow

_AT_ONCE = 32  # images of a gallery
_TOP = 5


class EmbedPredictor(Predictor):
    """Embeddings of images, and who they are of a gallery."""

    answer_class: ClassVar[type[Answer]] = EmbedAnswer

    def __init__(self, model: nn.Module | None, facts: Facts) -> None:
        super().__init__(model, facts)
        self._galleries: dict[tuple[str, str], Gallery] = {}
        self._points: FacePoints | None = None

    @classmethod
    def relabel(cls, recipe: Recipe, source: Source) -> Source:
        """Identities that are not those of use are numbered within each split, which shows no others."""
        splits = {
            key: split if split.truth is None or split.kind.closed else split.with_truth(split.kind.compact())
            for key, split in source.splits.items()
        }
        return source.with_splits(splits)

    # Embeddings, and galleries

    def answers(
        self,
        outputs: Any,
        sizes: Sequence[tuple[int, int]],
        originals: Sequence[Tensor],
        *,
        gallery: str | None = None,
        top: int | None = None,
        **options: Any,
    ) -> list[dict[str, Any]]:
        """The embedding of each image, as it is compared, float32 (D,); with a gallery the `top` nearest people."""
        embeddings = self._decode(outputs)
        found: list[dict[str, Any]] = [
            {"features": embeddings.shape[1], "embedding": row.numpy().copy()} for row in embeddings
        ]
        if gallery is not None:
            held = self.gallery(gallery)
            distances = self._distances(embeddings, held.embeddings)
            for answer, row in zip(found, distances, strict=True):
                answer |= self._identify(row.numpy(), held, top or _TOP)
        return found

    def gallery(self, path: str | Path) -> Gallery:
        """A gallery by its file, or made of a folder by identity. Raises InputError for one that another model made."""
        key = str(path), "" if self._points is None else str(self._points.file)
        if key not in self._galleries:
            place = Path(path).expanduser()
            if place.is_file() and place.suffix.lower() == ".safetensors":
                held = read_gallery(place)
                held.check_model(fingerprint(self), path)
            else:
                held = self.embed_people(path)
            if not len(held):
                raise InputError(
                    f"the gallery {path} is empty; add people: opsin gallery {path} --run RUN --add FOLDER"
                )
            self._galleries[key] = held
        return self._galleries[key]

    @torch.inference_mode()
    def embed_people(self, source: str | Path) -> Gallery:
        """A gallery of a folder with a folder of images for each person, or of other data by identity.

        Images that cannot be read are left out, with a line. Raises InputError where there are none.
        """
        opened = data.open(source, self.recipe.task)
        names, files, rows, bad = list[str](), list[str](), list[Tensor](), list[str]()
        for split in opened.splits.values():
            for start in follow(range(0, len(split), _AT_ONCE), "embedding the gallery", "batches"):
                read: list[Tensor] = []
                for i in range(start, min(start + _AT_ONCE, len(split))):
                    if (label := int(split.kind.labels[i])) < 0:
                        continue
                    try:
                        image = split.read(i)
                        read.append(image if self._points is None else self._points.align(split.name(i), image))
                    except UnreadableImage as error:
                        bad.append(f"{error.path}: {error.reason}")
                        continue
                    names.append(str(split.kind.names[label]))
                    files.append(split.name(i))
                if read:
                    rows.append(self._decode(self.run(self.collate(read).to(self.device), read)))
        if bad:
            say(f"{len(bad):,} images of the gallery cannot be read, and are left out; the first is {bad[0]}")
        if not rows:
            raise InputError(
                f"{source} holds no image of a known identity; expected a folder of images for each person"
            )
        embeddings = torch.cat(rows)
        if not bool(torch.isfinite(embeddings).all()):
            raise InputError("embeddings of the gallery are not finite; the network has diverged, train it anew")
        return Gallery(embeddings, names, files, fingerprint(self), short_name(self.recipe.model.name))

    def read(self, given: Any) -> Tensor:
        """An image, uint8 (C, H, W), or the aligned crop of its face where `points` says where that is."""
        image: Tensor = super().read(given)
        return image if self._points is None else self._points.align(given, image)

    def for_inputs(self, found: Sequence[Any], options: Mapping[str, Any]) -> Predictor:
        """Two images, of which nothing else is asked, are compared with each other."""
        asked = any(options.get(name) is not None for name in ("gallery", "embeddings"))
        if len(found) != 2 or asked or any(is_video(one) for one in found):
            return self
        return self.pairs()

    def pairs(self) -> PairPredictor:
        """What says whether two images show the same. Raises InputError for a model without a threshold."""
        return PairPredictor(self.model, self.facts)

    def verify(self, first: Any, second: Any) -> PairAnswer:
        """Whether two images show the same identity; each is whatever `predict` takes as an image."""
        return next(iter(self.pairs().stream([first, second])))  # type: ignore[return-value]

    def describe(self, answer: Mapping[str, Any]) -> str:
        if "nearest" not in answer:
            return f"{answer['features']} numbers"
        listed = ", ".join(f"{one['name']} {one['distance']:.3f}" for one in answer["nearest"])
        if answer["name"] is None:
            return f"nearest: {listed} (no threshold is fitted, so that nobody is unknown: opsin eval RUN --far 1e-3)"
        return f"{answer['name']} (nearest: {listed})"

    def draw(self, image: Tensor, answer: Mapping[str, Any]) -> Any:
        """The image over who it is. Raises InputError for an answer without a gallery."""
        from opsin.data.drawing import Line, add_caption, to_pil

        if "nearest" not in answer:
            raise InputError(
                "an embedding is not drawn on its image; give --gallery, or write it with --embeddings FILE"
            )
        first = answer["nearest"][0]
        lines = [Line(str(answer["name"] or first["name"]))]
        lines += [Line(one["name"], f"{one['distance']:.3f}") for one in answer["nearest"][:3]]
        return add_caption(to_pil(image), lines)

    def programs(self) -> list[Program]:
        usage = f"{describe_input(self.preprocessing)}embedding: (batch, features); the nearer, the more alike."
        module = NormalizedNetwork(
            self.model, self.preprocessing, lambda outputs: {"embedding": self.model.decode(outputs)}
        )
        return [Program(module, ["embedding"], {"usage": usage})]

    def without_network(self) -> EmbedPredictor:
        own = super().without_network()
        own._galleries = {}
        return own

    # What they are made of

    def _checked(self, options: Mapping[str, Any], batch_size: int) -> dict[str, Any]:
        checked = super()._checked(options, batch_size)
        points = checked.get("points")
        if points is None or self._points is None or str(self._points.file) != str(points):
            self._points = None if points is None else read_points(points)
        if (gallery := checked.get("gallery")) is not None:
            self.gallery(gallery)  # before anything is read
        return checked

    def _decode(self, outputs: Any) -> Tensor:
        """(B, D) float32 on the CPU. Raises InputError where an embedding is not finite."""
        found: Tensor = self.model.decode(outputs).float().cpu()
        if not bool(torch.isfinite(found).all()):
            raise InputError(
                f"{short_name(self.recipe.model.name)} gives embeddings that are not finite; train it anew"
            )
        return found

    def _distances(self, first: Tensor, second: Tensor) -> Tensor:
        """(M, N) on the CPU, by the network's own measure."""
        if type(self.model).distances is Embedder.distances:
            return exact_distances(first, second)
        measure: Callable[[Tensor, Tensor], Tensor] = self.model.distances
        return measure(first.to(self.device), second.to(self.device)).cpu()

    def _identify(self, distances: np.ndarray, gallery: Gallery, top: int) -> dict[str, Any]:
        """Who an image is. distances: (N,) to the gallery."""
        nearest: list[dict[str, Any]] = []
        seen: set[str] = set()
        for place in np.argsort(distances, kind="stable").tolist():
            name = str(gallery.names[place])
            if name not in seen:
                seen.add(name)
                nearest.append({"name": name, "distance": float(distances[place]), "file": gallery.files[place]})
            if len(nearest) == top:
                break
        threshold, distance = self.threshold, nearest[0]["distance"]
        name = None if threshold is None else nearest[0]["name"] if distance <= threshold.distance else UNKNOWN
        probability = None if threshold is None else threshold.probability(distance)
        return {"name": name, "distance": distance, "probability": probability, "nearest": nearest}

    @property
    def threshold(self) -> Threshold | None:
        """Up to which distance a pair is the same; None for a model that none was fitted for."""
        return self.model.threshold


class PairPredictor(EmbedPredictor):
    """Whether two images show the same identity."""

    answer_class: ClassVar[type[Answer]] = PairAnswer
    takes: ClassVar[Literal["each", "together", "frames", "nothing"]] = "together"

    def __init__(self, model: nn.Module | None, facts: Facts) -> None:
        super().__init__(model, facts)
        if model is not None and self.threshold is None:
            raise InputError(
                "no threshold is fitted, so that nothing says which distance is the same: opsin eval RUN --far 1e-3 "
                "fits it on people who are not in the test"
            )

    def answers(
        self, outputs: Any, sizes: Sequence[tuple[int, int]], originals: Sequence[Tensor], **options: Any
    ) -> list[dict[str, Any]]:
        """Of two images one answer."""
        if len(originals) != 2:
            raise InputError(f"two images are compared, got {len(originals)}")
        embeddings, threshold = self._decode(outputs), self.threshold
        assert threshold is not None
        distance = float(self._distances(embeddings[:1], embeddings[1:])[0, 0])
        return [
            {
                "same": distance <= threshold.distance,
                "distance": distance,
                "probability": threshold.probability(distance),
                "threshold": threshold.distance,
                "far": threshold.far,
            }
        ]

    def describe(self, answer: Mapping[str, Any]) -> str:
        words = "the same" if answer["same"] else "not the same"
        sign = "<=" if answer["same"] else ">"
        return (
            f"{words}: distance {answer['distance']:.4g} {sign} {answer['threshold']:.4g}, the threshold for a false "
            f"accept rate of {describe_far(answer['far'])}; probability {100 * answer['probability']:.1f} %"
        )
