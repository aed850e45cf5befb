"""Models of sequences in use: texts and numbers in, texts, labels, classes and numbers out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from opsin import registry
from opsin.data import Source
from opsin.engine.answers import Answer
from opsin.engine.checkpoint import Facts
from opsin.engine.predict import Predictor
from opsin.engine.program import Program
from opsin.engine.recipe import Recipe, own_section
from opsin.errors import InputError, printable
from opsin.sequence.answers import SequenceAnswer
from opsin.sequence.continuation import continue_tokens
from opsin.sequence.given import find_given, read_series
from opsin.sequence.inputs import KEY, pad, steps_of, text_of
from opsin.sequence.program import programs_of
from opsin.sequence.terms import Terms, choose_terms
from opsin.sequence.tokens import PAD
from opsin.sequence.truth import WRITTEN, SequenceTruth
from opsin.structures import Batch

_TOP = 5  # classes of an answer


@dataclass(frozen=True)
class Given:
    """One input that was found: a text or numbers, or why there is none. shown: where it came from."""

    value: Any
    shown: str

    def __str__(self) -> str:
        return self.shown


class SequencePredictor(Predictor):
    """What a model says of sequences. terms: how it reads and writes."""

    key: ClassVar[str] = KEY
    answer_class: ClassVar[type[Answer]] = SequenceAnswer

    def __init__(self, model: nn.Module | None, facts: Facts) -> None:
        super().__init__(model, facts)
        self.terms = Terms(facts.meaning)

    @classmethod
    def relabel(cls, recipe: Recipe, source: Source) -> Source:
        train = source.splits.get("train")
        if train is None or not isinstance(train.truth, SequenceTruth):
            return source  # of an evaluation, which takes the terms that the model has
        section: Any = own_section(recipe)
        network = registry.find_model(recipe.model.name).network
        shared = getattr(network, "shared_vocabulary", False) if section.shared is None else section.shared
        terms = choose_terms(
            train,
            unit=section.unit,
            target_unit=section.target_unit or section.unit,
            size=section.size,
            min_count=section.min_count,
            shared=shared,
            normalize=section.normalize,
            max_length=section.max_length,
        )
        meaning = {**train.truth.meaning, **terms}
        splits = {
            key: split if split.truth is None else split.with_truth(split.truth.match(meaning))
            for key, split in source.splits.items()
        }
        return source.with_splits(splits)

    @classmethod
    def labels_of(cls, meaning: Mapping[str, Any]) -> list[str]:
        terms = Terms(meaning)
        if terms.form in (*WRITTEN, "language"):
            return [f"<{k}>" for k in range(4)] + list(terms.target.symbols)
        return terms.classes

    # What is given

    def find(self, inputs: Sequence[str | Path]) -> Sequence[Any]:
        """Texts as they stand, the lines of files, and - for the lines of standard input."""
        return [Given(value, shown) for value, shown in find_given(inputs, self.terms)]

    def expand(self, given: Any) -> tuple[Sequence[Any], bool]:
        """A text, a series (T, C) or a path of a file with a line each; or a list of them."""
        if isinstance(given, str) and self.terms.source is not None:
            return [Given(given, given)], True
        if isinstance(given, str | Path):
            return self.find([given]), self.terms.form == "captions" and Path(given).is_file()
        if isinstance(given, Given) or (isinstance(given, np.ndarray | Tensor) and given.ndim <= 3):
            return [given], True
        found: list[Any] = []
        for one in given:
            found += [one] if isinstance(one, Given | np.ndarray | Tensor) else list(self.expand(one)[0])
        return found, False

    def receive(self, value: Any) -> Any:
        if self.terms.source is None:
            return read_series(value)
        if not isinstance(value, str):
            raise InputError(f"the model reads texts, got {type(value).__name__}")
        return Given(value, value)

    def predict(self, images: Any = (), *, stream: bool = False, **options: Any) -> Any:  # type: ignore[override]
        """The answer to a text, a series (T, C) or an image read as one; or to each of several, or of a file's lines.

        images: what is given; the name is that of `opsin.engine.predict.Predictor.predict`, as are stream and
        batch_size. options: those of the task: beam, length_penalty, temperature, seed, max_length.
        """
        items, single = self.expand(images)
        found = super().predict(list(items), stream=stream, **options)
        return found[0] if single and not stream else found

    def read(self, given: Any) -> Any:
        """Code points (n,) int32 of a text, or numbers (T, C) float32. Raises InputError for what cannot be read."""
        value = given.value if isinstance(given, Given) else given
        if isinstance(value, InputError):
            raise value
        if self.terms.form == "captions":
            return self._read_image(value)
        if self.terms.source is None:
            return self._read_numbers(value)
        if not isinstance(value, str):
            raise InputError(f"the model reads texts, got {type(value).__name__}")
        if not self.terms.source.split(value) and self.terms.form != "language":
            raise InputError(f"{given!s:.60}: the text is empty; expected one or more {self.terms.source.unit}")
        if new := self.terms.source.unknown(value):
            self._refuse_unknown(value, new)
        codes = torch.from_numpy(np.frombuffer(value.encode("utf-32-le", "surrogatepass"), np.int32).copy())
        self._check_length(len(self.terms.source.encode(value)), value)
        return codes

    def _refuse_unknown(self, text: str, new: Sequence[str]) -> None:
        """Raise InputError for symbols that the training data had not; rare words it was trained to do without."""
        unit = "characters" if self.terms.source is not None and self.terms.source.unit == "characters" else "words"
        section: Any = own_section(self.recipe)
        if section.min_count > 1 or section.size is not None:
            return
        shown = ", ".join(printable(repr(one)) for one in new[:5]) + (" ..." if len(new) > 5 else "")
        raise InputError(
            f"{printable(text[:40])!r} has {unit} that the model was never trained on: {shown}; leave them out, or "
            "train with sequence.min_count=2, by which rare ones are learned as unknown"
        )

    def _read_image(self, value: Any) -> Tensor:
        image = torch.from_numpy(value).permute(2, 0, 1) if isinstance(value, np.ndarray) and value.ndim == 3 else value
        if not isinstance(image, Tensor) or image.dtype != torch.uint8 or image.ndim != 3:
            raise InputError("the model reads images: files, uint8 tensors (C, H, W) or arrays (H, W, C)")
        return self.terms.images.prepare(image)

    def _read_numbers(self, value: Any) -> Tensor:
        if isinstance(value, Tensor) and value.dtype == torch.uint8 and value.ndim == 3:
            value = steps_of(value, self.terms.channels == value.shape[0])
        series = read_series(value)
        if series.shape[1] != self.terms.channels or not len(series):
            raise InputError(
                f"the model reads series of {self.terms.channels} numbers a step, got {tuple(series.shape)} "
                "(steps, numbers)"
            )
        self._check_length(len(series), f"a series of {len(series)} steps")
        return series

    def _check_length(self, length: int, shown: str) -> None:
        most = getattr(self.model, "max_positions", None)
        if most is not None and length > most:
            raise InputError(f"{shown[:40]!r} has {length:,} symbols, and the model takes {most:,} at most; shorten it")

    # What the network makes of it

    def collate(self, originals: Sequence[Any]) -> Tensor:
        return self.terms.as_input(originals)[0]

    def run(self, batch: Tensor, originals: Sequence[Any]) -> Any:
        return None if self.terms.form == "language" else self.model(*self.given(originals))

    def inputs(self, batch: Batch) -> tuple[Any, ...]:
        return self.given(list(batch[self.key]))

    def given(self, raw: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """What forward takes: symbols, images, or numbers and how many steps each series has."""
        source, lengths = self.terms.as_input(raw)
        if self.terms.source is not None:
            return (source.to(self.device),)
        if self.terms.form == "captions":
            return (source.to(self.device, self.dtype),)
        return source.to(self.device, self.dtype), lengths.to(self.device)

    def targets(self, batch: Batch) -> dict[str, Tensor]:
        """What the network's loss is given of a loaded batch, on its device."""
        found = self.terms.as_target(batch.get("target"), list(batch[self.key]))
        return {name: value.to(self.device) for name, value in found.items()}

    # What it says

    def _checked(self, options: Mapping[str, Any], batch_size: int) -> dict[str, Any]:
        checked = super()._checked(options, batch_size)
        own = {"beam": WRITTEN, "length_penalty": WRITTEN, "temperature": (*WRITTEN, "language")}
        own |= {"seed": own["temperature"], "max_length": own["temperature"]}
        for name in checked:
            if name in own and self.terms.form not in own[name]:
                raise InputError(f"{name} is for models that write texts; this one answers {self.terms.form}")
        if checked.get("temperature") and checked.get("beam", 1) > 1:
            raise InputError("temperature draws at random and beam searches; give one of them")
        return checked

    def answers(
        self, outputs: Any, sizes: Sequence[tuple[int, int]], originals: Sequence[Any], **options: Any
    ) -> list[dict[str, Any]]:
        """Of each sequence what the model says; see `SequenceAnswer`. options: as of `predict`."""
        say = getattr(self, f"_say_{self.terms.form}")
        found: list[dict[str, Any]] = say(outputs, originals, **options)
        if self.terms.source is None:
            return found
        return [{"source": text_of(raw), **one} for raw, one in zip(originals, found, strict=True)]

    def written(self, outputs: Any, **options: Any) -> list[Any]:
        """The text that is written for each, as the network's `decode` has it. options: of `predict`."""
        given: dict[str, Any] = {"max_length": options.get("max_length") or self.terms.max_length}
        if (width := options.get("beam") or 1) > 1:
            given |= {"way": "beam", "beam_width": width, "length_penalty": options.get("length_penalty") or 0.0}
        elif options.get("temperature"):
            given |= {"way": "sample", "temperature": options["temperature"], "seed": options.get("seed") or 0}
        return self.model.decode(outputs, **given)

    def looks(self, outputs: Any, tokens: Sequence[Sequence[int]]) -> Tensor | None:
        """Where each symbol written looked, (B, longest + 1, S), its end too; None of a network without attention."""
        own: Callable[..., Tensor | None] | None = getattr(self.model, "attention", None)
        return own(outputs, pad(tokens, PAD, torch.int64)[0].to(self.device)) if callable(own) else None

    def _say_pairs(self, outputs: Any, originals: Sequence[Any], **options: Any) -> list[dict[str, Any]]:
        written = self.written(outputs, **options)
        looks = self.looks(outputs, [one.tokens for one in written])
        found: list[dict[str, Any]] = []
        for k, (one, raw) in enumerate(zip(written, originals, strict=True)):
            answer = {"text": self.terms.target.decode(one.tokens), "score": float(one.score)}
            if looks is not None and self.terms.source is not None:
                read = len(self.terms.source.encode(text_of(raw)))
                answer["attention"] = looks[k, : len(one.tokens) + 1, :read].float().cpu().numpy()
            found.append(answer)
        return found

    def _say_captions(self, outputs: Any, originals: Sequence[Any], **options: Any) -> list[dict[str, Any]]:
        written = self.written(outputs, **options)
        looks = self.looks(outputs, [one.tokens for one in written])
        found: list[dict[str, Any]] = []
        for k, one in enumerate(written):
            answer = {"text": self.terms.target.decode(one.tokens), "score": float(one.score)}
            if looks is not None:
                grid = self.model.grid(*self.terms.images.size)
                answer["attention"] = looks[k, : len(one.tokens) + 1].unflatten(1, grid).float().cpu().numpy()
            found.append(answer)
        return found

    def _say_language(self, outputs: Any, originals: Sequence[Any], **options: Any) -> list[dict[str, Any]]:
        vocabulary, most = self.terms.target, options.get("max_length") or self.terms.max_length
        temperature, seed = options.get("temperature") or 0.0, int(options.get("seed") or 0)
        found = []
        for raw in originals:
            begun = vocabulary.encode(text_of(raw))
            own = continue_tokens(self.model, begun, most, temperature, seed)
            found.append({"text": vocabulary.decode(own)})
        return found

    def _say_labels(self, outputs: Any, originals: Sequence[Any], **options: Any) -> list[dict[str, Any]]:
        shares, best = outputs["logits"].float().softmax(dim=-1).max(dim=-1)
        found = []
        for raw, row, share in zip(originals, best.tolist(), shares.tolist(), strict=True):
            count = len(text_of(raw).split())
            labels = [self.terms.classes[k] for k in row[:count]]
            found.append({"labels": labels, "scores": share[:count]})
        return found

    def _say_classes(self, outputs: Any, originals: Sequence[Any], **options: Any) -> list[dict[str, Any]]:
        classes = self.terms.classes
        top = outputs["logits"].float().softmax(dim=-1).topk(min(_TOP, len(classes)), dim=-1)
        found = []
        for scores, numbers in zip(top.values.tolist(), top.indices.tolist(), strict=True):
            named = [{"label": classes[k], "score": score} for k, score in zip(numbers, scores, strict=True)]
            found.append({**named[0], "classes": named})
        return found

    def _say_values(self, outputs: Any, originals: Sequence[Any], **options: Any) -> list[dict[str, Any]]:
        return [{"values": row} for row in self.terms.in_units(outputs["values"].double()).tolist()]

    def programs(self) -> list[Program]:
        return programs_of(self.model, self.key)

    def describe(self, answer: dict[str, Any]) -> str:
        """`May 3, 2021 -> 2021-05-03`."""
        before = f"{printable(answer['source'])} -> " if "source" in answer else ""
        if "text" in answer:
            return f"{before}{printable(answer['text'])}"
        if "labels" in answer:
            return f"{before}{printable(' '.join(answer['labels']))}"
        if "label" in answer:
            return f"{before}{printable(answer['label'])} {100 * answer['score']:.1f} %"
        return f"{before}{' '.join(f'{value:.4g}' for value in answer['values'])}"
