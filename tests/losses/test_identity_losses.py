"""Losses of batches of identities against plain versions of their papers, and over two processes."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from opsin.errors import InputError
from opsin.losses import (
    ArcFaceLoss,
    CosFaceLoss,
    CosineSoftmax,
    batch_contrastive_loss,
    contrastive_loss,
    create_identity_loss,
    list_identity_losses,
    prototypical_loss,
    soft_ratio_loss,
    triplet_loss,
)
from opsin.losses.distances import euclidean_distances
from opsin.losses.pairs import neighbouring_pairs
from opsin.losses.triplets import Mining, mined_gaps

close = torch.testing.assert_close
LABELS = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 3, -1, -1])


def draw(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def triplets(labels: Tensor) -> list[tuple[int, int, int]]:
    """Every anchor, positive and negative, by the definition."""
    known = [k for k, label in enumerate(labels.tolist()) if label >= 0]
    return [
        (a, p, n)
        for a, p, n in itertools.product(known, known, known)
        if a != p and labels[a] == labels[p] and labels[a] != labels[n]
    ]


class TestMiningByTheDefinition:
    """On 12 embeddings, of which one is alone and two are of nobody; squared and plain distances."""

    x = F.normalize(draw(12, 3))

    def distance(self, i: int, j: int, squared: bool) -> float:
        length = float((self.x[i] - self.x[j]).norm())
        return length**2 if squared else length

    @pytest.mark.parametrize("squared", [False, True])
    def test_batch_hard(self, squared: bool) -> None:
        terms = []
        for anchor in range(9):
            own = [t for t in triplets(LABELS) if t[0] == anchor]
            far = max(self.distance(anchor, p, squared) for _, p, _ in own)
            near = min(self.distance(anchor, n, squared) for _, _, n in own)
            terms.append(max(0.0, far - near + 0.3))
        found = triplet_loss(self.x, LABELS, margin=0.3, mining="batch_hard", squared=squared)
        assert float(found) == pytest.approx(sum(terms) / len(terms))

    @pytest.mark.parametrize("squared", [False, True])
    def test_facenet_takes_the_nearest_that_is_farther_within_the_margin(self, squared: bool) -> None:
        terms = []
        for a, p in {(a, p) for a, p, _ in triplets(LABELS)}:
            own = self.distance(a, p, squared)
            others = [self.distance(a, n, squared) for x, y, n in triplets(LABELS) if (x, y) == (a, p)]
            inside = [d for d in others if own < d < own + 0.3]
            terms += [own - min(inside) + 0.3] if inside else []
        assert 5 < len(terms) < 19
        found = triplet_loss(self.x, LABELS, margin=0.3, mining="facenet", squared=squared)
        assert float(found) == pytest.approx(sum(terms) / len(terms))

    @pytest.mark.parametrize("squared", [False, True])
    def test_semi_hard_all_has_every_one_within_the_margin(self, squared: bool) -> None:
        gaps = [self.distance(a, p, squared) - self.distance(a, n, squared) for a, p, n in triplets(LABELS)]
        terms = [gap + 0.3 for gap in gaps if -0.3 < gap < 0]
        found = triplet_loss(self.x, LABELS, margin=0.3, mining="semi_hard_all", squared=squared)
        assert float(found) == pytest.approx(sum(terms) / len(terms))

    def test_soft_ratio_is_the_squared_error_of_the_papers_softmax(self) -> None:
        terms = []
        for a, p, n in triplets(LABELS):
            both = torch.tensor([self.distance(a, p, False), self.distance(a, n, False)]).softmax(0)
            terms.append(float((both - torch.tensor([0.0, 1.0])).square().sum()) / 2)
        assert float(soft_ratio_loss(self.x, LABELS)) == pytest.approx(sum(terms) / len(terms), rel=1e-6)

    def test_batch_contrastive_weighs_both_kinds_alike(self) -> None:
        pairs = [(i, j) for i, j in itertools.combinations(range(10), 2)]
        same = [(i, j) for i, j in pairs if LABELS[i] == LABELS[j]]
        others = [pair for pair in pairs if pair not in same]
        terms = [
            contrastive_loss(self.x[[i for i, _ in part]], self.x[[j for _, j in part]], torch.full((len(part),), kind))
            for part, kind in ((same, 1), (others, 0))
        ]
        close(batch_contrastive_loss(self.x, LABELS), (terms[0] + terms[1]) / 2)

    @pytest.mark.parametrize("mining", ["semi_hard", "facenet"])
    def test_both_ways_to_the_next_farther_are_one(self, mining: Mining, monkeypatch: pytest.MonkeyPatch) -> None:
        """The one without reading values, which accelerators take."""
        from opsin.losses import triplets as module

        direct = mined_gaps(self.x, LABELS, mining=mining)
        ways = {"semi_hard": True, "facenet": False}
        same, seen = LABELS[:, None] == LABELS, LABELS != -1
        gaps, valid = module._next_farther_sorted(self.x, same, seen, False, else_farthest=ways[mining])
        close(gaps[valid].sort().values, direct[0][direct[1]].sort().values)


def test_pytorch_metric_learning_finds_the_same() -> None:
    """Value and gradient, of single precision too, where its distances are less exact."""
    miners = pytest.importorskip("pytorch_metric_learning.miners")
    from pytorch_metric_learning import distances, losses, reducers

    x, labels = F.normalize(draw(24, 8)).requires_grad_(), torch.arange(24) % 6
    distance = distances.LpDistance(normalize_embeddings=False)
    cases = {
        "batch_hard": (miners.BatchHardMiner(distance=distance), reducers.MeanReducer()),
        "semi_hard_all": (
            miners.TripletMarginMiner(0.2, type_of_triplets="semihard", distance=distance),
            reducers.AvgNonZeroReducer(),
        ),
    }
    for mining, (miner, reducer) in cases.items():
        theirs = losses.TripletMarginLoss(0.2, distance=distance, reducer=reducer)
        expected = theirs(x, labels, miner(x, labels))
        found = triplet_loss(x, labels, margin=0.2, mining=mining)  # type: ignore[arg-type]
        close(found, expected)
        close(torch.autograd.grad(found, x)[0], torch.autograd.grad(expected, x)[0])
        close(triplet_loss(x.float(), labels, margin=0.2, mining=mining).double(), expected, atol=1e-6, rtol=1e-6)  # type: ignore[arg-type]


def test_arcface_and_cosface_are_pytorch_metric_learnings() -> None:
    theirs = pytest.importorskip("pytorch_metric_learning.losses")
    x, labels = draw(7, 4).float() * 3, torch.tensor([0, 1, 2, 0, 1, 2, 2])
    for ours, other in (
        (ArcFaceLoss(3, 4, margin=0.4, scale=8), theirs.ArcFaceLoss(3, 4, margin=math.degrees(0.4), scale=8)),
        (CosFaceLoss(3, 4, margin=0.2, scale=8), theirs.CosFaceLoss(3, 4, margin=0.2, scale=8)),
    ):
        ours.weight.data = draw(3, 4, seed=5).float()
        other.W.data = ours.weight.data.T.clone()
        close(ours(x, labels), other(x, labels), atol=1e-5, rtol=1e-5)


def test_arcface_goes_on_falling_where_the_angle_is_near_pi() -> None:
    criterion = ArcFaceLoss(2, 2, margin=0.5, scale=1)
    criterion.weight.data = torch.tensor([[1.0, 0], [0, 1]])
    angles = torch.linspace(0.01, math.pi - 0.01, 60)
    values = torch.stack([criterion(torch.stack([a.cos(), a.sin()])[None], torch.tensor([0])) for a in angles])
    logit_of_other = angles.sin()
    own = logit_of_other - (values.exp() - 1).log()  # of a softmax of two
    assert (own.diff() < 0).all()


def test_cosine_softmax_learns_its_scale() -> None:
    criterion, x = CosineSoftmax(3, 4, scale=5), draw(6, 4).float()
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    expected = F.cross_entropy(5 * F.cosine_similarity(x[:, None], criterion.weight[None], dim=2), labels)
    close(criterion(x, labels), expected)
    criterion(x, labels).backward()
    assert criterion.log_scale.grad is not None and criterion.log_scale.grad != 0


class TestPrototypes:
    def test_one_shot_by_hand(self) -> None:
        """Prototypes 0 and 4 on a line; a query of each at 1 and at 3, and a class without one at 10."""
        x = torch.tensor([[0.0], [4.0], [1.0], [3.0], [10.0]], dtype=torch.float64)
        labels = torch.tensor([7, 2, 7, 2, 5])
        first = -math.log(math.exp(-1) / (math.exp(-1) + math.exp(-9) + math.exp(-81)))
        second = -math.log(math.exp(-1) / (math.exp(-1) + math.exp(-9) + math.exp(-49)))
        assert float(prototypical_loss(x, labels)) == pytest.approx((first + second) / 2)

    def test_several_shots_are_their_mean(self) -> None:
        x, labels = draw(12, 4), torch.arange(12) % 3
        prototypes = torch.stack([x[k:6:3].mean(dim=0) for k in range(3)])
        expected = F.cross_entropy(-torch.cdist(x[6:], prototypes).square(), labels[6:])
        close(prototypical_loss(x, labels, shots=2), expected)

    def test_without_two_classes_or_queries_it_is_zero_with_a_gradient(self) -> None:
        for labels in ([1, 1, 1], [0, 1, 2], [-1, -1, 3]):
            x = draw(3, 2).requires_grad_()
            loss = prototypical_loss(x, torch.tensor(labels))
            assert loss == 0
            assert (torch.autograd.grad(loss, x)[0] == 0).all()


def test_single_precision_distances_are_as_exact_as_differences() -> None:
    """Points within 1e-3 of each other, 10 from the origin: a product in single precision is off by a tenth there."""
    x = (10 + 1e-3 * draw(40, 16)).float().requires_grad_()
    exact = torch.cdist(x.double(), x.double(), compute_mode="donot_use_mm_for_euclid_dist")
    found = euclidean_distances(x)
    close(found.double(), exact, atol=0, rtol=1e-5)
    weights = draw(40, 40)
    ours = torch.autograd.grad((found * weights).sum(), x)[0]
    close(ours.double(), torch.autograd.grad((exact * weights).sum(), x)[0].double(), atol=1e-4, rtol=1e-4)


def test_neighbouring_pairs_by_hand() -> None:
    first, second, same = neighbouring_pairs(torch.tensor([4, 4, 9, -1, 9, 4]))
    pairs = {(a, b): bool(s) for a, b, s in zip(first.tolist(), second.tolist(), same.tolist(), strict=True)}
    assert pairs == {
        **{(0, 1): True, (1, 5): True, (2, 4): True, (4, 2): True, (5, 0): True},
        **{(0, 2): False, (1, 2): False, (2, 5): False, (4, 5): False, (5, 2): False},
    }


@pytest.mark.parametrize("name", list_identity_losses())
def test_every_loss_by_name_learns(name: str) -> None:
    """Two steps down the gradient lower it, of embeddings that are given."""
    options = {"criteria": {"softmax": None, "centre": {"alpha": None}}} if name == "weighted_sum" else {}
    options |= {"alpha": None} if name == "centre" else {}
    options |= {"mining": "batch_all"} if name == "triplet" else {}
    torch.manual_seed(0)
    criterion = create_identity_loss(name, num_classes=3, features=4, **options)
    x = nn.Parameter(draw(12, 4).float())
    labels, optimizer = torch.arange(12) % 3, torch.optim.SGD([x, *criterion.parameters()], lr=1e-4)
    values = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = criterion(x, labels)
        loss.backward()
        optimizer.step()
        values.append(float(loss.detach()))
    assert values[2] < values[1] < values[0]


def test_unknown_names_and_options_name_the_nearest() -> None:
    with pytest.raises(InputError, match="triplet"):
        create_identity_loss("tripplet", num_classes=3, features=4)
    with pytest.raises(InputError, match="margin"):
        create_identity_loss("arcface", num_classes=3, features=4, margn=1)
    with pytest.raises(InputError, match="follows from the data"):
        create_identity_loss("weighted_sum", num_classes=3, features=4, criteria={"centre": {"features": 3}})
    with pytest.raises(InputError, match="within the margin"):
        create_identity_loss("triplet", num_classes=3, features=4, mining="facenet", margin="soft")


_TWO = """
import sys, torch
from torch import distributed
from opsin.losses import create_identity_loss
rank, folder, names = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
x = torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
labels, part = torch.tensor([0, 0, 1, 1, 2, 2, 0, 1, 2]), slice(0, 5) if rank == 0 else slice(5, 9)
for name in names:
    w = torch.eye(4, dtype=torch.float64).requires_grad_()
    loss = create_identity_loss(name, num_classes=3, features=4)(x[part] @ w, labels[part])
    loss.backward()
    distributed.all_reduce(w.grad)
    if rank == 0:
        torch.save((loss.detach(), w.grad / 2), f"{folder}/{name}.pt")
"""


def test_two_processes_find_the_loss_and_the_gradient_of_one(tmp_path: Path) -> None:
    """Shares of 5 and 4 rows, with triplets across them; the mean of the gradients is that of all rows at once."""
    names = ["triplet", "contrastive", "prototypical"]
    call = [sys.executable, "-c", _TWO]
    runs = [subprocess.Popen([*call, str(rank), str(tmp_path), *names]) for rank in (0, 1)]
    assert [run.wait(200) for run in runs] == [0, 0]
    x = torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 0, 1, 2])
    for name in names:
        value, gradient = torch.load(tmp_path / f"{name}.pt", weights_only=True)
        w = torch.eye(4, dtype=torch.float64).requires_grad_()
        loss = create_identity_loss(name, num_classes=3, features=4)(x @ w, labels)
        close(value, loss.detach())
        close(gradient, torch.autograd.grad(loss, w)[0])
