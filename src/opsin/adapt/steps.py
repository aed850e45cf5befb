"""The stages of an adaptation: the sources alone, then the method, in one step or over bridges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from opsin.adapt.collecting import collect
from opsin.adapt.domains import TARGET, UNKNOWN, DomainLabels, join
from opsin.adapt.methods import create_method
from opsin.adapt.self_training import SelfTraining, confident_answers
from opsin.adapt.weighting import InstanceMethod, effective_share, normalized_weights
from opsin.data import Split
from opsin.engine.stages import Workplace
from opsin.engine.task import Stage
from opsin.errors import InputError

BASELINE = "source_only"
_DROPPED = 0.1  # of a bridge's images, those with the least sure answers, which teach nothing in the next step


def stages_of(task: Any) -> Sequence[Stage]:
    """The sources alone first; nothing else where that is the method, which is then one training without stages."""
    name, bridges = task.section.method, task.domains.bridges if task.domains is not None else ()
    if name == BASELINE:
        return ()
    first = Stage(BASELINE, lambda place: _train_baseline(task, place))
    if not bridges:
        return [first, Stage(name, lambda place: _train_method(task, place, 0, 1))]
    count = len(bridges) + 1
    steps = [Stage(f"{name}_{k + 1}", lambda place, k=k: _train_method(task, place, k, count)) for k in range(count)]
    return [first, *steps]


def _train_baseline(task: Any, place: Workplace) -> Mapping[str, Tensor]:
    task.take(create_method(BASELINE, 1, len(task.classes), 1))
    place.train(_seen(place.splits))
    return task.model.state_dict()


def _train_method(task: Any, place: Workplace, step: int, count: int) -> Mapping[str, Tensor]:
    """step: which of `count`, from 0. Later steps go on from the one before."""
    method, splits = task.chosen, _seen(place.splits)
    if isinstance(method, InstanceMethod):
        splits = {**splits, "train": _weighed(task, method, splits["train"], place)}
    elif isinstance(method, SelfTraining) or count > 1:
        splits = {**splits, "train": _of_step(task, splits["train"], step, count, place)}
    if not method.continues and step == 0:
        task.model.load_state_dict(task.first)
    task.take(method)
    method.begin(task.model)
    place.train(splits)
    return task.model.state_dict()


def _seen(splits: Mapping[str, Split]) -> dict[str, Split]:
    return {name: split for name, split in splits.items() if name != "test"}


def _weighed(task: Any, method: InstanceMethod, split: Split, place: Workplace) -> Split:
    """The training split with weights of the sources' examples, by what the network of the sources alone sees."""
    truth: DomainLabels = split.kind
    train = task.recipe.train
    source = np.flatnonzero(truth.domains != TARGET)
    target = np.flatnonzero(truth.domains == TARGET)
    features = collect(task.predictor, split, train.batch_size, train.workers)[0].numpy()
    weights = np.ones(len(split), np.float32)
    found = method.weigh(features[source], features[target], truth.labels[source], truth.labels[target])
    weights[source] = normalized_weights(found)
    share = effective_share(weights[source])
    place.say(f"{task.section.method}: the weights leave {100 * share:.0f} % of the sources' examples, effectively")
    return split.with_truth(truth.weighed(weights))


def _of_step(task: Any, split: Split, step: int, count: int, place: Workplace) -> Split:
    """What a step is trained on: of self-training the next domain with the network's answers, else two domains."""
    assert task.domains is not None
    truth: DomainLabels = split.kind
    method, train = task.chosen, task.recipe.train
    target = split.subset(np.flatnonzero(truth.domains == TARGET))
    domains = [*task.domains.bridges, *([target] if len(target) else [])]
    if step >= len(domains):
        raise InputError("self-training and bridges lead to a target, and there is none; give --target")
    dropped = method.dropped if isinstance(method, SelfTraining) else _DROPPED

    def answered(domain: Split) -> np.ndarray:
        logits = collect(task.predictor, domain, train.batch_size, train.workers)[1]
        return confident_answers(logits.softmax(dim=1).numpy(), dropped)

    if isinstance(method, SelfTraining):
        labels = answered(domains[step])
        kept = np.flatnonzero(labels >= 0)
        place.say(f"step {step + 1} of {count}: {len(kept)} of {len(labels)} images are taught by their own answers")
        return join([(domains[step].subset(kept), labels[kept], 0)], task.classes)
    unknown = np.full(len(domains[step]), UNKNOWN)
    if step == 0:
        source = split.subset(np.flatnonzero(truth.domains != TARGET))
        joined = join([(source, source.kind.labels, 0), (domains[0], unknown, TARGET)], task.classes)
        domain = np.concatenate([source.kind.domains, np.full(len(unknown), TARGET)])
        return joined.with_truth(replace(joined.kind, domains=domain))
    before = domains[step - 1]
    labels = answered(before)
    kept = np.flatnonzero(labels >= 0)
    return join([(before.subset(kept), labels[kept], 0), (domains[step], unknown, TARGET)], task.classes)
