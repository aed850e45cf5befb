"""How two domains differ, before anything is trained: by their images, by their classes, and by how many of each.

Proxy A-distance: Ben-David et al. 2006, "Analysis of representations for domain adaptation"; as it is computed here,
Ganin et al. 2016, arXiv:1505.07818, section 5.2.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from opsin.adapt.logistic_regression import fit_logistic
from opsin.adapt.mean_discrepancy import kernel_widths, mmd_quadratic
from opsin.adapt.opening import describe_label_sets, open_target
from opsin.data import Source, Split
from opsin.data.class_names import translate
from opsin.data.truth import Problem
from opsin.engine.predict import load
from opsin.engine.recipe import load_recipe
from opsin.errors import InputError, printable, say

_SIDE, _MANY, _FEW = 32, 1000, 20
_NEAR, _FAR = 0.4, 1.8  # of the A-distance, in [0, 2]
_FOLDS, _AT_ONCE = 5, 64
_PENALTY = 0.01  # C of the classifier of domains: of pixels there are more than images


@dataclass
class Shift:
    """What the comparison found. None: not defined, or nobody can say without labels.

    a_distance: in [0, 2], 0 where no linear classifier separates the domains. mmd: the square root of the unbiased
    estimate, 0 where that is below 0, and noise: what two halves of the first domain have. classes: of each class in
    both domains the MMD of its images. label_shift: half the sum of differences of the classes' shares, in [0, 1].
    transfer: accuracy of nearest class means of the first domain on the second; within: on the first, held out.
    """

    one: str
    other: str
    images: tuple[int, int]
    features: str
    a_distance: float
    mmd: float
    noise: float
    classes: dict[str, float | None] = field(default_factory=dict)
    label_shift: float | None = None
    within: float | None = None
    transfer: float | None = None
    notes: list[str] = field(default_factory=list)
    advice: str = ""

    def render(self) -> str:
        """Lines for a terminal."""
        lines = [
            f"{self.one} against {self.other}, {self.images[0]:,} and {self.images[1]:,} images, by {self.features}",
            f"  proxy A-distance  {self.a_distance:.2f}  (0: alike, 2: separated without an error)",
            f"  MMD               {self.mmd:.4f}  (two halves of {self.one}: {self.noise:.4f})",
        ]
        if self.label_shift is not None:
            lines.append(
                f"  label shift       {100 * self.label_shift:.1f} %  of the images would have to change class"
            )
        if self.transfer is not None and self.within is not None:
            lines.append(
                f"  nearest class means of {self.one}: {100 * self.within:.1f} % there, "
                f"{100 * self.transfer:.1f} % of {self.other}"
            )
        known = sorted(((v, k) for k, v in self.classes.items() if v is not None), reverse=True)
        if known:
            lines.append("  farthest classes: " + ", ".join(f"{name} {value:.4f}" for value, name in known[:5]))
        return "\n".join(printable(line) for line in [*lines, *(f"  {note}" for note in self.notes), self.advice])

    @property
    def problems(self) -> list[Problem]:
        """Label sets that differ, as warnings."""
        return [Problem("label_sets", self.other, note, "warning") for note in self.notes]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def draw(self) -> None:
        """Nothing is drawn here."""
        return


def check(source: Source, name: str, split: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """The finding of `opsin data A --against C`. options: against, features, points."""
    if (against := options.get("against")) is None:
        raise InputError("features and points are of a comparison; say with what, --against SOURCE")
    recipe = load_recipe({"task": "adapt", "model": {"name": "lenet5"}, "data": {"source": name}})
    other = open_target(recipe, str(against), say)
    points = int(options.get("points") or _MANY)
    return {"shift": compare_domains(source, other, str(options.get("features") or "pixels"), points)}


def compare_domains(one: Source, other: Source, features: str = "pixels", points: int = _MANY) -> Shift:
    """The shift between two domains. features: "pixels", grey ones of 32x32, or a run or weights that name features.

    points: images of each that are looked at, evenly spaced in its training part. Raises InputError for fewer than 20.
    """
    seen = [_look(source, features, points) for source in (one, other)]
    (a, labels), (b, others) = seen
    for source, rows in ((one, a), (other, b)):
        if len(rows) < _FEW:
            raise InputError(f"{source.name} has {len(rows)} images to compare; a comparison takes {_FEW} or more")
    found = Shift(one.name, other.name, (len(a), len(b)), features, proxy_a_distance(a, b), *_discrepancies(a, b))
    found.notes = describe_label_sets(one, other)
    if labels is not None and others is not None:
        names = translate(list(other.classes), list(one.classes))
        mapped = np.array([one.classes.index(n) if n in one.classes else -1 for n in names] or [-1])
        others = np.where(others < 0, -1, mapped[others])
        _compare_labels(found, one.classes, a, labels, b, others)
    elif labels is not None:
        found.within, _ = _nearest_means(a, labels, b, None)
    found.advice = _advise(found)
    return found


def proxy_a_distance(one: np.ndarray, other: np.ndarray) -> float:
    """2 (1 - 2 e), e the error of a linear classifier of the two domains on examples held out; 0 where e is above 1/2.

    one: (n, D), other: (m, D), n and m at least 5. A logistic regression of features of mean 0 and variance 1, five
    folds, each domain weighing a half; the papers take a linear SVM.
    """
    features = np.concatenate([one, other]).astype(np.float64)
    features = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-8)
    domain = np.repeat([0, 1], [len(one), len(other)])
    share = np.where(domain == 0, len(domain) / (2 * len(one)), len(domain) / (2 * len(other)))
    random = np.random.RandomState(0)
    fold = np.concatenate([random.permutation(np.arange(count) % _FOLDS) for count in (len(one), len(other))])
    errors = []
    for number in range(_FOLDS):
        train, test = fold != number, fold == number
        model = fit_logistic(features[train], domain[train], share[train], inverse_penalty=_PENALTY)
        wrong = model.predict(features[test]) != domain[test]
        errors.append(np.mean([wrong[domain[test] == k].mean() for k in (0, 1)]))
    return float(max(0.0, 2 * (1 - 2 * np.mean(errors))))


def label_shift(one: np.ndarray, other: np.ndarray, num_classes: int) -> float:
    """(1/2) sum_k |p_k - q_k|: the share of images that would have to be of another class. -1 counts for none."""
    p, q = (np.bincount(labels[labels >= 0], minlength=num_classes) for labels in (one, other))
    return float(np.abs(p / max(1, p.sum()) - q / max(1, q.sum())).sum() / 2)


def _discrepancies(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """The MMD of two samples, and that of two halves of the first."""
    half = np.random.RandomState(0).permutation(len(a))
    return _mmd(a, b), _mmd(a[half[::2]], a[half[1::2]])


def _mmd(a: np.ndarray, b: np.ndarray) -> float:
    one, other = torch.from_numpy(a[:500]).float(), torch.from_numpy(b[:500]).float()
    squared = float(_in_parts(one, other))
    return max(0.0, squared) ** 0.5


def _in_parts(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """`mmd_quadratic` of features that are first turned so that D is at most n + m: distances stay what they are."""
    both = torch.cat([one, other])
    both = both - both.mean(dim=0)
    if both.shape[1] > len(both):
        both = torch.linalg.qr(both.T, mode="r").R.T
    one, other = both[: len(one)], both[len(one) :]
    return mmd_quadratic(one, other, kernel_widths(one, other))


def _compare_labels(
    found: Shift, classes: Sequence[str], a: np.ndarray, labels: np.ndarray, b: np.ndarray, others: np.ndarray
) -> None:
    found.label_shift = label_shift(labels, others, len(classes))
    found.within, found.transfer = _nearest_means(a, labels, b, others)
    for k, name in enumerate(classes):
        rows, other_rows = a[labels == k], b[others == k]
        found.classes[name] = _mmd(rows, other_rows) if min(len(rows), len(other_rows)) > 1 else None


def _nearest_means(
    a: np.ndarray, labels: np.ndarray, b: np.ndarray, others: np.ndarray | None
) -> tuple[float | None, float | None]:
    """Accuracy of the class means of one half of a domain on its other half, and of all of them on another domain."""
    order = np.random.RandomState(1).permutation(len(a))
    within = _accuracy_of_means(a[order[::2]], labels[order[::2]], a[order[1::2]], labels[order[1::2]])
    return within, None if others is None else _accuracy_of_means(a, labels, b, others)


def _accuracy_of_means(a: np.ndarray, labels: np.ndarray, b: np.ndarray, others: np.ndarray) -> float | None:
    there, known = np.unique(labels[labels >= 0]), others >= 0
    if not len(there) or not known.any():
        return None
    means = np.stack([a[labels == k].mean(axis=0) for k in there])
    distances = np.square(means).sum(axis=1)[None] - 2 * b[known] @ means.T
    return float((there[distances.argmin(axis=1)] == others[known]).mean())


def _advise(found: Shift) -> str:
    """Whether adaptation is likely to help, in words."""
    if found.a_distance < _NEAR:
        return (
            "likely not worth it: the domains are hardly distinguishable; train on the first and evaluate on the second"
        )
    if found.transfer is not None and found.within is not None and found.transfer > found.within - 0.03:
        return "likely not worth it: the domains differ, and not in what distinguishes the classes"
    far = "; they share little of what was compared, so look at source_only first" if found.a_distance > _FAR else ""
    shifted = ""
    if found.label_shift is not None and found.label_shift > 0.3:
        shifted = "; their classes have other shares, onto which methods by features may pull the wrong images"
    differing = "; label sets that differ make it worse" if found.notes else ""
    return f"adaptation may help: the domains are separable{far}{shifted}{differing}"


def _look(source: Source, features: str, points: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Features of a domain's images, (N, D) float32, and their labels where it has some."""
    split: Split = next(source.splits[key] for key in ("train", "all", *source.splits) if key in source.splits)
    places = np.unique(np.linspace(0, len(split) - 1, min(points, len(split))).astype(np.int64))
    chosen = split.subset(places)
    labels = None if chosen.truth is None or chosen.kind.presence.ndim != 1 else chosen.kind.presence
    return _features(chosen, features), labels


def _features(split: Split, features: str) -> np.ndarray:
    if features == "pixels":
        rows = []
        for i in range(len(split)):
            image = split.read(i).float().mean(dim=0, keepdim=True)[None] / 255
            rows.append(F.interpolate(image, (_SIDE, _SIDE), mode="bilinear", antialias=True).flatten())
        return torch.stack(rows).numpy()
    predictor = load(features)
    vectors = [
        predictor.embed([split.read(i) for i in range(at, min(at + _AT_ONCE, len(split)))])
        for at in range(0, len(split), _AT_ONCE)
    ]
    return torch.cat(vectors).float().numpy()
