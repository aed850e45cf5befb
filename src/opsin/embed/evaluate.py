"""Evaluation of embedders: verification, retrieval, and few-shot learning, whatever of it a split can be asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from opsin.data import Split
from opsin.data.identity_trials import ListedPairs, OneShotRuns
from opsin.embed.clusters import cluster, mutual_information
from opsin.embed.collapse import within_between
from opsin.embed.comparison import Comparison, compare_all, compare_pairs, exact_distances
from opsin.embed.embedder import Embedder
from opsin.embed.evidence import Evidence
from opsin.embed.few_shot import Shots, run_episodes, run_mixed, run_trials
from opsin.embed.hausdorff import hausdorff_distances, ink_points
from opsin.embed.retrieval import Retrieval, retrieve, search_by, search_euclidean, search_faiss
from opsin.embed.thresholds import Threshold, fit_threshold
from opsin.embed.verification import accept_rates, interval_over_people, measure_folds
from opsin.engine.evaluator import Evaluator, Result
from opsin.engine.predict import Predictor
from opsin.errors import InputError
from opsin.structures import Batch

if TYPE_CHECKING:
    from opsin.engine.report import Section

RATES = (1e-1, 1e-2, 1e-3, 1e-4)  # false accept rates


@dataclass(frozen=True)
class Fitted:
    """The threshold that was fitted, beside the metrics of the people whom it was fitted on."""

    metrics: dict[str, float]
    threshold: Threshold

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {**self.metrics, "threshold": self.threshold.to_dict()}

    def describe(self) -> str:
        """A line for a terminal."""
        return self.threshold.describe()


class EmbedEvaluator(Evaluator):
    """Collects embeddings as they are compared, in float32 on the CPU, and identities.

    far: fit the threshold for this false accept rate, on people who are not in the test, and keep it with the model.
    nmi: cluster the embeddings too. faiss: let FAISS search. hausdorff: of one-shot runs, the modified Hausdorff
    distance beside the network. ways, shots: few-shot episodes of any identities.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        far: float | None = None,
        nmi: bool = False,
        faiss: bool = False,
        hausdorff: bool = False,
        ways: int | None = None,
        shots: int | None = None,
    ) -> None:
        super().__init__(predictor)
        self.far, self.nmi, self.faiss, self.hausdorff = far, nmi, faiss, hausdorff
        self.ways, self.shots = ways, shots
        self.split: Split | None = None

    def begin(self, split: Split) -> None:
        self.split = split
        if self.hausdorff and not isinstance(split.truth, OneShotRuns):
            raise InputError("hausdorff is for one-shot runs, such as Omniglot's all_runs.zip; leave it out")

    def update(self, outputs: Any, batch: Batch) -> None:
        embeddings = self.predictor.model.decode(outputs).float().cpu()
        logits = outputs["logits"].float().cpu() if "logits" in outputs else [None] * len(embeddings)
        places = batch["index"].tolist()
        self.collect(places, list(zip(embeddings, batch["identity"].tolist(), logits, strict=True)))

    def gathered(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Embeddings (N, D), identities (N,), and logits (N, K) where the network classifies; in the split's order."""
        embeddings, identities, logits = zip(*self.collected(), strict=True)
        found = None if logits[0] is None else torch.stack(list(logits))
        return torch.stack(list(embeddings)), torch.tensor(identities), found

    def compared(self) -> tuple[Tensor, Tensor]:
        """Embeddings (N, D) and identities (N,) int64, as metrics of metric learning take them."""
        embeddings, identities, _ = self.gathered()
        return embeddings, identities

    def brief(self) -> dict[str, float]:
        embeddings, identities, logits = self._checked()
        found = self._accuracy(identities, logits)
        if (comparison := self._compare(embeddings, identities)) is not None:
            found |= {"auc": comparison.roc.auc, "eer": comparison.roc.equal_error()[0]}
        if (retrieval := self._retrieve(embeddings, identities)) is not None:
            found["recall@1"] = float(retrieval.matches[0])
        return found

    def result(self) -> Result:
        embeddings, identities, logits = self._checked()
        evidence = Evidence(embeddings, identities)
        metrics: dict[str, float] = {}
        details: dict[str, Any] = {
            "images": len(identities),
            "identities": len(np.unique(identities[identities >= 0])),
        }
        truth = None if self.split is None else self.split.truth
        if isinstance(truth, OneShotRuns):
            metrics |= self._run(truth, embeddings, evidence, details)
        else:
            metrics |= self._verify(embeddings, identities, evidence, details)
            if not isinstance(truth, ListedPairs):
                metrics |= self._find(embeddings, identities, evidence, details)
        metrics |= self._accuracy(identities, logits)
        if logits is not None and (ratio := within_between(embeddings, torch.as_tensor(identities))) is not None:
            metrics["within_between"] = ratio
        if not metrics:
            raise InputError(
                "nothing can be evaluated: no two images of this split show the same identity; give a split with two "
                "images or more of a person"
            )
        fitted = self._threshold if self.far is not None else None
        return Result(metrics, details, evidence, None if fitted is None else Fitted(metrics, fitted))

    def calibrate(self) -> None:
        """Fit the threshold for the false accept rate that was asked for; of a training that asks for none, nothing."""
        if self.far is None:
            return
        embeddings, identities, _ = self._checked()
        comparison = self._compare(embeddings, identities)
        if comparison is None:
            raise InputError("no threshold can be fitted: no two images of this split show the same identity")
        self.predictor.model.threshold = fit_threshold(comparison, self.far)

    def sections(self, result: Result, split: Split) -> list[Section]:
        from opsin.embed import report  # drawing takes long to import

        return report.sections(result, split, self._threshold)

    # What is measured

    @property
    def _threshold(self) -> Threshold | None:
        return self.predictor.model.threshold

    @property
    def _euclidean(self) -> bool:
        """Whether the network compares embeddings by the Euclidean distance, and by no measure of its own."""
        return type(self.predictor.model).distances is Embedder.distances

    def _distances(self) -> Callable[[Tensor, Tensor], Tensor]:
        return exact_distances if self._euclidean else self._own_distances

    @torch.no_grad()
    def _own_distances(self, first: Tensor, second: Tensor) -> Tensor:
        device = self.predictor.device
        return self.predictor.model.distances(first.to(device), second.to(device)).cpu()

    def _checked(self) -> tuple[Tensor, np.ndarray, Tensor | None]:
        embeddings, identities, logits = self.gathered()
        finite = torch.isfinite(embeddings).all(dim=1)
        if not bool(finite.all()):
            first = int((~finite).nonzero()[0])
            name = "" if self.split is None else f", the first is that of {self.split.name(first)}"
            raise InputError(
                f"{int((~finite).sum()):,} of {len(finite):,} embeddings are not finite{name}; the network has diverged"
            )
        return embeddings, identities.numpy(), logits

    def _accuracy(self, identities: np.ndarray, logits: Tensor | None) -> dict[str, float]:
        if logits is None or not self.predictor.classes:
            return {}
        return {"accuracy": float((logits.argmax(dim=1).numpy() == identities).mean())}

    def _compare(self, embeddings: Tensor, identities: np.ndarray) -> Comparison | None:
        """Pairs compared: those that the split lists, else all; None where there are none of both kinds."""
        truth = None if self.split is None else self.split.truth
        at = None if self._threshold is None else self._threshold.distance
        if isinstance(truth, ListedPairs):
            listed = self._listed(embeddings, truth)
            return compare_pairs(listed, truth.is_same, truth.pairs, identities[truth.pairs[:, 0]], at)
        counts = np.unique(identities[identities >= 0], return_counts=True)[1]
        if len(counts) < 2 or counts.max() < 2:
            return None
        return compare_all(embeddings, identities, self._distances(), at)

    @torch.no_grad()
    def _listed(self, embeddings: Tensor, truth: ListedPairs) -> np.ndarray:
        """The distances of listed pairs, (P,) float64."""
        device, found = self.predictor.device, list[Tensor]()
        for part in torch.from_numpy(truth.pairs).split(4096):
            one, other = (embeddings[part[:, k]].to(device) for k in (0, 1))
            found.append(self.predictor.model.pair_distances(one, other).double().cpu())
        return torch.cat(found).numpy()

    def _retrieve(self, embeddings: Tensor, identities: np.ndarray) -> Retrieval | None:
        counts = np.unique(identities[identities >= 0], return_counts=True)[1]
        if not len(counts) or counts.max() < 2:
            return None
        if self.faiss and not self._euclidean:
            raise InputError(
                f"{self.predictor.recipe.model.name} has a measure of its own, FAISS has not; leave it out"
            )
        search = search_faiss if self.faiss else search_euclidean if self._euclidean else search_by(self._own_distances)
        return retrieve(embeddings, identities, search=search)

    def _verify(
        self, embeddings: Tensor, identities: np.ndarray, evidence: Evidence, details: dict[str, Any]
    ) -> dict[str, float]:
        comparison = evidence.comparison = self._compare(embeddings, identities)
        if comparison is None:
            return {}
        roc, truth = comparison.roc, None if self.split is None else self.split.truth
        (eer, at), rates = roc.equal_error(), accept_rates(roc, RATES)
        metrics = {"auc": roc.auc, "eer": eer, **rates}
        details["verification"] = {
            "compared": comparison.images,
            "pairs": {"same": int(roc.same[-1]), "different": roc.different},
            "eer_distance": at,
            "intervals": {name: self._interval(comparison, rate) for name, rate in zip(rates, RATES, strict=False)},
        }
        if isinstance(truth, ListedPairs) and len(np.unique(truth.folds)) > 1:
            folds = measure_folds(self._listed(embeddings, truth), truth.is_same, truth.folds)
            metrics["fold_accuracy"] = folds.mean
            details["folds"] = {"error": folds.error, "accuracies": folds.accuracies.tolist()}
        if (threshold := self._threshold) is not None:
            tar, far = roc.rates(threshold.distance)
            metrics |= {"tar@threshold": tar, "far@threshold": far}
            details["threshold"] = threshold.to_dict()
        return metrics

    def _interval(self, comparison: Comparison, rate: float) -> list[float]:
        """Where the true accept rate lies with 95 %, at the threshold of this split, over draws of people."""
        threshold = comparison.roc.accept(rate)[1]
        return list(interval_over_people(comparison.right(threshold), comparison.counts))

    def _find(
        self, embeddings: Tensor, identities: np.ndarray, evidence: Evidence, details: dict[str, Any]
    ) -> dict[str, float]:
        retrieval = evidence.retrieval = self._retrieve(embeddings, identities)
        if retrieval is None:
            return {}
        metrics = retrieval.metrics()
        details["retrieval"] = {
            "queries": len(retrieval.queries),
            "lone": retrieval.lone,
            "cumulative_matches": retrieval.matches.tolist(),
        }
        if self.nmi:
            known = identities >= 0
            clusters = cluster(embeddings[torch.from_numpy(known)], len(np.unique(identities[known])))
            metrics["nmi"] = mutual_information(identities[known], clusters)
        if self.ways is not None or self.shots is not None:
            ways, shots = self.ways or 5, self.shots or 1
            found = run_episodes(embeddings, identities, ways=ways, shots=shots)
            metrics |= self._note(evidence, details, f"{ways}way_{shots}shot_accuracy", found)
        return metrics

    def _run(
        self, truth: OneShotRuns, embeddings: Tensor, evidence: Evidence, details: dict[str, Any]
    ) -> dict[str, float]:
        """One-shot runs: each query against the supports of its run, and episodes over all pairs mixed."""
        asked, shown = np.flatnonzero(truth.query), np.flatnonzero(~truth.query)
        allowed = truth.run[asked][:, None] == truth.run[shown]
        own = self._distances()(embeddings[torch.from_numpy(asked)], embeddings[torch.from_numpy(shown)]).cpu().numpy()
        trials = run_trials(own, truth.labels[asked], truth.labels[shown], allowed)
        metrics = self._note(evidence, details, "one_shot_accuracy", trials)
        ways, pairs = self.ways or 5, _pairs(truth, asked, shown)
        if pairs is not None:
            mixed = run_mixed(own[:, pairs], ways=ways)
            metrics |= self._note(evidence, details, f"{ways}way_1shot_accuracy", mixed)
        if self.hausdorff and self.split is not None:
            points = [ink_points(self.split.read(i)) for i in range(len(truth))]
            queries, supports = [points[i] for i in asked], [points[i] for i in shown]
            plain = hausdorff_distances(queries, supports, allowed if pairs is None else None)
            found = run_trials(plain, truth.labels[asked], truth.labels[shown], allowed)
            metrics |= self._note(evidence, details, "hausdorff_one_shot_accuracy", found)
            if pairs is not None:
                mixed = run_mixed(plain[:, pairs], ways=ways)
                metrics |= self._note(evidence, details, f"hausdorff_{ways}way_1shot_accuracy", mixed)
        return metrics

    def _note(self, evidence: Evidence, details: dict[str, Any], name: str, found: Shots) -> dict[str, float]:
        evidence.shots[name] = found
        details[name] = found.to_dict()
        return {name: found.accuracy}


def _pairs(truth: OneShotRuns, asked: np.ndarray, shown: np.ndarray) -> np.ndarray | None:
    """(Q,) of each query the place of the support of its class, where queries and supports are pairs; else None."""
    place = {int(truth.labels[i]): k for k, i in enumerate(shown)}
    found = [place.get(int(truth.labels[i]), -1) for i in asked]
    return np.array(found) if len(set(found)) == len(asked) and min(found, default=-1) >= 0 else None
