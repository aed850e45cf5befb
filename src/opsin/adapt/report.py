"""What an adaptation has come to, beside a training on the sources alone, and by labels that neither has seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from opsin.adapt.domains import Domains
from opsin.adapt.steps import BASELINE
from opsin.engine.checkpoint import read_tensors
from opsin.engine.evaluate import evaluate_split
from opsin.engine.report import Section, Table, Text

if TYPE_CHECKING:
    from opsin.engine.run import RunFolder

_UNSUPERVISED = ("entropy", "snd")


@dataclass
class Comparison:
    """Two trainings of one network. Each maps metric -> value.

    oracle: of the target's labelled test images, which nothing was trained or chosen by; empty where there are none.
    """

    method: str
    target: str
    own: Mapping[str, float]
    baseline: Mapping[str, float] | None
    oracle: Mapping[str, float] = field(default_factory=dict)
    oracle_baseline: Mapping[str, float] = field(default_factory=dict)
    count: int = 0

    @property
    def worse(self) -> bool | None:
        """Whether the method ended below training on the sources alone, by the oracle; None where nobody can say."""
        if self.baseline is None or not self.oracle:
            return None
        return self.oracle["accuracy"] < self.oracle_baseline["accuracy"]

    def verdict(self) -> str:
        """Whether it helped, in plain words."""
        if self.baseline is None:
            return ""
        if self.worse is None:
            return (
                f"{self.target or 'the target'} has no labels that could say whether {self.method} helped; look at "
                "some of its answers, or label a few images for the purpose"
            )
        gain = 100 * (self.oracle["accuracy"] - self.oracle_baseline["accuracy"])
        if self.worse:
            return f"WORSE than source_only on {self.target} by {-gain:.2f} points: {self.method} did harm here"
        return f"{self.method} gains {gain:.2f} points over source_only on {self.target}"

    def lines(self) -> list[str]:
        """For the terminal."""
        found = []
        if self.oracle:
            before = "" if not self.oracle_baseline else f"source_only {_percent(self.oracle_baseline)}, "
            found.append(
                f"oracle, by {self.count:,} labels of {self.target} that nothing was trained or chosen by: "
                f"{before}{self.method} {_percent(self.oracle)}"
            )
        return [*found, *([self.verdict()] if self.baseline is not None else [])]

    def sections(self) -> list[Section]:
        """For report.html."""
        names = [self.method] if self.baseline is None else ["source_only", self.method]
        both = [self.own] if self.baseline is None else [self.baseline, self.own]
        keys = [key for key in ("accuracy", *_UNSUPERVISED) if any(key in one for one in both)]
        called = {
            "accuracy": "accuracy, sources, validation",
            "entropy": "entropy of the answers, target",
            "snd": "density of neighbourhoods, target",
        }
        rows: list[list[Any]] = [[called[key], *(one.get(key) for one in both)] for key in keys]
        sections: list[Section] = [Table("Adaptation", ["what needs no target labels", *names], rows)]
        if self.oracle:
            shown = [self.oracle] if self.baseline is None else [self.oracle_baseline, self.oracle]
            row: list[Any] = ["accuracy, target, test", *(one["accuracy"] for one in shown)]
            note = (
                f"By {self.count:,} labels of {self.target} that nothing was trained or chosen by. Not a result of use."
            )
            sections.append(Table("Oracle (for comparison only)", ["what target labels say", *names], [row], note))
        if self.baseline is not None:
            sections.append(Text("Did it help?", self.verdict()))
        return sections


def compare(task: Any, domains: Domains, folder: RunFolder) -> Comparison:
    """What the finished model and the one of the sources alone come to, on validation and by the oracle."""
    section = task.section
    own, oracle = _measure(task, domains)
    found = Comparison(section.method, domains.target, own, None, oracle)
    found.count = 0 if domains.oracle is None else len(domains.oracle)
    result = folder.path / "stages" / BASELINE / "result.safetensors"
    if section.method != BASELINE and result.is_file():
        kept = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}
        task.model.load_state_dict(_fitting(read_tensors(result)[0], task.model.state_dict()))
        temperature = task.model.temperature
        task.model.temperature = 1.0
        found.baseline, found.oracle_baseline = _measure(task, domains)
        task.model.load_state_dict(kept)
        task.model.temperature = temperature
    return found


def _measure(task: Any, domains: Domains) -> tuple[dict[str, float], dict[str, float]]:
    """Of the model as it is now: its figures on validation, and by the oracle."""
    own: dict[str, float] = {}
    if "val" in domains.splits:
        evaluator = task.create_evaluator()
        evaluate_split(evaluator, domains.splits["val"])
        own = evaluator.brief()
    oracle: dict[str, float] = {}
    if domains.oracle is not None:
        oracle = dict(evaluate_split(task.create_evaluator(), domains.oracle).metrics)
    return own, oracle


def _fitting(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to(own[name].device) for name, tensor in state.items()}


def _percent(metrics: Mapping[str, float]) -> str:
    return f"{100 * metrics['accuracy']:.2f} %"
