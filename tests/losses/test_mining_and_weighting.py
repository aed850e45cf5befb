"""Hard negatives by a slow plain version, and sums of named losses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from opsin.errors import InputError
from opsin.losses import WeightedSum, create_loss, cross_entropy, hard_negatives

close = torch.testing.assert_close


def plain(losses: Tensor, positive: Tensor, ratio: float) -> Tensor:
    """Image by image, by sorting."""
    chosen = torch.zeros_like(positive)
    for row, (values, truth) in enumerate(zip(losses.tolist(), positive.tolist(), strict=True)):
        negatives = sorted((i for i, t in enumerate(truth) if not t), key=lambda i, values=values: -values[i])
        chosen[row, negatives[: int(ratio * sum(truth))]] = True
    return chosen


@pytest.mark.parametrize("ratio", [0, 1, 2.5, 3])
def test_hard_negatives_are_the_highest_losses(ratio: float) -> None:
    generator = torch.Generator().manual_seed(0)
    losses = torch.randint(0, 9, (6, 20), generator=generator).float()  # with ties
    positive = torch.rand(6, 20, generator=generator) < torch.tensor([0, 0.05, 0.1, 0.2, 0.5, 1])[:, None]
    assert (hard_negatives(losses, positive, ratio=ratio) == plain(losses, positive, ratio)).all()


def test_hard_negatives_come_from_the_allowed() -> None:
    losses, positive = torch.tensor([9.0, 8, 7, 6, 5]), torch.tensor([True, False, False, False, False])
    allowed = torch.tensor([True, False, True, False, True])
    assert hard_negatives(losses, positive, negative=allowed).tolist() == [False, False, True, False, True]


def test_ssd_as_in_the_docstring() -> None:
    """Of one positive and four negatives the easiest negative does not count."""
    terms = torch.tensor([[1.0, 0.1, 2.0, 3.0, 4.0]], requires_grad=True)
    positive = torch.tensor([[True, False, False, False, False]])
    loss = (terms * (positive | hard_negatives(terms, positive))).sum()
    assert loss == 10
    assert torch.autograd.grad(loss, terms)[0].tolist() == [[1, 0, 1, 1, 1]]


def test_hard_negatives_take_nan_first_and_read_no_values() -> None:
    losses = torch.tensor([1.0, math.nan, 3.0, 2.0])
    positive = torch.tensor([False, False, False, True])
    assert hard_negatives(losses, positive, ratio=1).tolist() == [False, True, False, False]
    assert hard_negatives(losses.to("meta"), positive.to("meta")).shape == (4,)
    assert hard_negatives(torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.bool)).shape == (2, 0)


def test_wrong_masks_are_named() -> None:
    with pytest.raises(InputError, match=r"positive is \(4,\) of torch.bool; expected \(5,\) of bool"):
        hard_negatives(torch.zeros(5), torch.zeros(4, dtype=torch.bool))
    with pytest.raises(InputError, match=r"positive is \(5,\) of torch.float32"):
        hard_negatives(torch.zeros(5), torch.zeros(5))


class TestWeightedSum:
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3, 0, 1])

    def build(self, **options: object) -> WeightedSum:
        criteria = {"sharp": create_loss("cross_entropy"), "smooth": create_loss("cross_entropy", smoothing=0.2)}
        return WeightedSum(criteria, {"smooth": 0.5}, **options)  # type: ignore[arg-type]

    def test_is_the_sum_of_its_weighted_terms(self) -> None:
        criterion = self.build()
        sharp, smooth = (cross_entropy(self.logits, self.labels, smoothing=s) for s in (0, 0.2))
        close(criterion(self.logits, self.labels), sharp + 0.5 * smooth)
        terms = criterion.terms(self.logits, self.labels)
        assert list(terms) == ["sharp", "smooth"]
        close(terms["smooth"], 0.5 * smooth)

    def test_one_criterion_of_weight_one_is_itself(self) -> None:
        criterion = WeightedSum({"only": create_loss("cross_entropy")})
        close(criterion(self.logits, self.labels), cross_entropy(self.logits, self.labels))

    def test_learned_weights_begin_as_the_plain_sum(self) -> None:
        learned = self.build(learned=True)
        close(learned(self.logits, self.labels), self.build()(self.logits, self.labels))
        assert [name for name, _ in learned.named_parameters()] == ["log_variances.sharp", "log_variances.smooth"]

    def test_learned_weights_find_the_variance(self) -> None:
        """exp(-s) L / 2 + s / 2 is least at s = log L: the variance of a squared error is its mean."""
        criterion = WeightedSum({"error": nn.Identity()}, {"error": 0.5}, learned=True)
        optimizer = torch.optim.SGD(criterion.parameters(), lr=0.5)
        for _ in range(100):
            optimizer.zero_grad()
            criterion.weigh({"error": torch.tensor(7.0)})["error"].backward()
            optimizer.step()
        assert criterion.log_variances is not None
        assert criterion.log_variances["error"].item() == pytest.approx(math.log(7), rel=1e-4)

    def test_terms_of_other_names_are_refused(self) -> None:
        with pytest.raises(InputError, match="has weights for sharp, smooth; got sharp, shape"):
            self.build().weigh({"sharp": torch.zeros(()), "shape": torch.zeros(())})

    def test_negative_weights_are_refused(self) -> None:
        with pytest.raises(InputError, match="the weight of only must be at least 0, got -1"):
            WeightedSum({"only": nn.Identity()}, {"only": -1})
