"""Losses of embeddings: the cases that are torch's, the paper's update of centres, and centres over two processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from opsin.errors import InputError
from opsin.losses import CentreLoss, contrastive_loss, l2_loss, margin_ranking_loss, triplet_loss
from opsin.losses.triplets import Mining

close = torch.testing.assert_close
MINING: list[Mining] = ["batch_all", "batch_all_nonzero", "batch_hard", "semi_hard"]


def draw(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_contrastive_of_same_pairs_is_l2_and_of_far_others_zero() -> None:
    first, second = draw(5, 4), draw(5, 4, seed=4)
    close(contrastive_loss(first, second, torch.ones(5)), 2 * l2_loss(first, second))
    assert contrastive_loss(first, second + 10, torch.zeros(5, dtype=torch.bool)) == 0


def test_contrastive_of_two_at_one_place_has_a_gradient() -> None:
    """Their distance has no direction: the slope there is taken as 0, not NaN."""
    x = torch.ones(2, 3, requires_grad=True)
    loss = contrastive_loss(x, torch.ones(2, 3), torch.tensor([0, 1]))
    assert loss == 0.25
    assert (torch.autograd.grad(loss, x)[0] == 0).all()


def test_margin_ranking_is_torchs() -> None:
    first, second, order = draw(6), draw(6, seed=4), torch.tensor([1.0, -1, 1, 1, -1, -1])
    expected = F.margin_ranking_loss(first, second, order, 0.1)
    close(margin_ranking_loss(first, second, order, margin=0.1), expected)


@pytest.mark.parametrize("mining", MINING)
class TestTriplets:
    def test_with_one_choice_is_torchs(self, mining: Mining) -> None:
        """Two of one identity, one of another: two triplets, whatever the mining."""
        x, labels = draw(3, 4), torch.tensor([5, 5, 2])
        expected = F.triplet_margin_loss(x[:2], x[[1, 0]], x[[2, 2]], margin=3.0, eps=0)
        close(triplet_loss(x, labels, margin=3.0, mining=mining), expected)

    def test_soft_margin(self, mining: Mining) -> None:
        x, labels = draw(3, 4), torch.tensor([5, 5, 2])
        distances = torch.cdist(x, x)
        expected = F.softplus(distances[0, 1] - distances[:2, 2]).mean()
        close(triplet_loss(x, labels, margin="soft", mining=mining), expected)

    def test_without_triplets_is_zero_with_a_gradient(self, mining: Mining) -> None:
        for labels in ([1, 1, 1], [1, 2, 3], [1, 1, -1]):
            x = draw(3, 4).requires_grad_()
            for margin in (0.2, "soft"):
                loss = triplet_loss(x, torch.tensor(labels), margin=margin, mining=mining)
                assert loss == 0
                assert (torch.autograd.grad(loss, x)[0] == 0).all()

    def test_collapsed_embeddings_have_a_finite_gradient(self, mining: Mining) -> None:
        x = torch.ones(4, 3, requires_grad=True)
        loss = triplet_loss(x, torch.tensor([0, 0, 1, 1]), mining=mining)
        assert loss.item() == pytest.approx(0.2)
        assert torch.autograd.grad(loss, x)[0].isfinite().all()

    def test_order_and_names_do_not_matter(self, mining: Mining) -> None:
        x, labels = draw(9, 4), torch.tensor([0, 1, 2] * 3)
        order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
        close(triplet_loss(x[order], labels[order] * 7 + 3, mining=mining), triplet_loss(x, labels, mining=mining))


def test_batch_hard_is_the_hardest() -> None:
    x, labels = draw(12, 4), torch.tensor([0, 1, 2] * 4)
    found = {mining: triplet_loss(x, labels, mining=mining).item() for mining in MINING}
    assert found["batch_hard"] > found["batch_all_nonzero"] > found["batch_all"]
    assert found["batch_hard"] > found["semi_hard"]


def test_semi_hard_by_hand() -> None:
    """On a line: anchor 0, positive 2; negatives at 1 (too near), 2.1 (semi-hard) and 9 (far)."""
    x = torch.tensor([[0.0], [2.0], [1.0], [2.1], [9.0]], dtype=torch.float64)
    # anchor 0: 2 - 2.1 + 0.2; anchor 2: nothing farther than 2 but 9, at 7: 0
    loss = triplet_loss(x, torch.tensor([0, 0, 1, 2, 3]), mining="semi_hard", margin=0.2)
    assert loss.item() == pytest.approx((2 - 2.1 + 0.2) / 2)


class TestCentreLoss:
    def test_papers_update_by_hand(self) -> None:
        criterion = CentreLoss(3, 2, alpha=0.5)
        x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [8.0, 8.0], [9.0, 9.0]], requires_grad=True)
        loss = criterion(x, torch.tensor([0, 0, 2, -1]))
        assert loss.item() == pytest.approx((5 + 25 + 128) / 2 / 3)
        close(torch.autograd.grad(loss, x)[0], x.detach() / 3 * torch.tensor([[1.0], [1], [1], [0]]))
        # class 0: 0.5 * (4, 6) / (1 + 2); class 1: nobody; class 2: 0.5 * (8, 8) / (1 + 1)
        close(criterion.centres, torch.tensor([[2 / 3, 1.0], [0, 0], [2, 2]]))

    def test_evaluation_moves_no_centre(self) -> None:
        criterion = CentreLoss(3, 2).eval()
        criterion(torch.ones(1, 2), torch.tensor([1]))
        assert (criterion.centres == 0).all()

    def test_centres_reach_the_means(self) -> None:
        criterion, labels = CentreLoss(2, 3), torch.tensor([0, 1] * 8)
        x = draw(16, 3).float() + labels[:, None] * 5
        for _ in range(40):
            criterion(x, labels)
        close(criterion.centres, torch.stack([x[labels == k].mean(dim=0) for k in (0, 1)]))

    def test_centres_are_a_buffer_or_a_parameter(self) -> None:
        for alpha, names in ((0.5, []), (None, ["centres"])):
            criterion = CentreLoss(3, 2, alpha=alpha)
            assert [name for name, _ in criterion.named_parameters()] == names
            assert list(criterion.state_dict()) == ["centres"]

    def test_as_a_parameter_it_has_the_gradient_of_the_loss(self) -> None:
        criterion = CentreLoss(3, 2, alpha=None).double()
        x, labels = draw(5, 2), torch.tensor([0, 2, 2, -1, 0])
        function = lambda centres: torch.func.functional_call(criterion, {"centres": centres}, (x, labels))  # noqa: E731
        assert torch.autograd.gradcheck(function, draw(3, 2, seed=5).requires_grad_())

    def test_half_precision_embeddings_move_full_precision_centres(self) -> None:
        criterion = CentreLoss(1, 2, alpha=1.0)
        criterion(torch.full((2000, 2), 100.0, dtype=torch.float16), torch.zeros(2000, dtype=torch.int64))
        assert criterion.centres.dtype is torch.float32
        close(criterion.centres, torch.full((1, 2), 100 * 2000 / 2001))

    def test_other_features_are_named(self) -> None:
        with pytest.raises(InputError, match=r"the centres have 2 features, the embeddings are \(4, 3\)"):
            CentreLoss(3, 2)(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64))
        with pytest.raises(InputError, match="labels hold 3"):
            CentreLoss(3, 2)(torch.zeros(1, 2), torch.tensor([3]))


TWO_PROCESSES = """
import sys, torch
from torch import distributed
from opsin.losses import CentreLoss
rank, folder = int(sys.argv[1]), sys.argv[2]
distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
x, labels = torch.load(f"{folder}/batch.pt", weights_only=True)
criterion = CentreLoss(3, 2)
for _ in range(3):
    criterion(x[rank::2], labels[rank::2])
torch.save(criterion.centres, f"{folder}/centres{rank}.pt")
distributed.barrier()
distributed.destroy_process_group()  # else gloo's threads may outlive the interpreter, which then aborts
"""


def test_two_processes_move_the_centres_as_one_with_both_batches(tmp_path: Path) -> None:
    x, labels = draw(7, 2).float(), torch.tensor([0, 1, 2, 0, -1, 0, 2])
    torch.save((x, labels), tmp_path / "batch.pt")
    command = [sys.executable, "-c", TWO_PROCESSES]
    started = [subprocess.Popen([*command, str(rank), str(tmp_path)]) for rank in (0, 1)]
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    one = CentreLoss(3, 2)
    for _ in range(3):
        one(x, labels)
    for rank in (0, 1):
        close(torch.load(tmp_path / f"centres{rank}.pt", weights_only=True), one.centres)
