"""MixUp in both published forms, and what cannot be mixed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from opsin.data import create_mixing
from opsin.data.transforms.batch_mixing import mix_images, mix_labels, mix_losses
from opsin.errors import InputError
from opsin.losses import binary_cross_entropy, cross_entropy


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_both_published_forms_are_equal_for_cross_entropy(share: float) -> None:
    torch.manual_seed(0)
    logits = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 1, 2, 3, 0])
    weight = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
    soft = mix_labels(labels, share, 4)
    assert torch.allclose(soft.sum(1), torch.ones(6))
    for loss in (
        F.cross_entropy,
        cross_entropy,
        lambda a, b: cross_entropy(a, b, smoothing=0.1),
        lambda a, b: cross_entropy(a, b, weight),
        binary_cross_entropy,
    ):
        by_labels, by_losses = loss(logits, soft.double()), mix_losses(loss, logits, labels, share)
        assert torch.allclose(by_labels, by_losses, atol=1e-7)
        gradients = [torch.autograd.grad(value, logits)[0] for value in (by_labels, by_losses)]
        assert torch.allclose(gradients[0], gradients[1], atol=1e-7)


def test_the_forms_differ_for_a_loss_that_is_not_linear_in_its_targets() -> None:
    logits, labels = torch.tensor([[1.0, -1.0], [0.5, 0.0]]), torch.tensor([0, 1])

    def squared(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        one_hot = F.one_hot(targets, 2).float() if targets.ndim == 1 else targets
        return (outputs.softmax(1) - one_hot).square().mean()

    assert squared(logits, mix_labels(labels, 0.5, 2)) < mix_losses(squared, logits, labels, 0.5) - 0.1


def test_by_hand_and_as_the_trainer_mixes() -> None:
    images, labels = torch.tensor([1.0, 3.0, 5.0]).view(3, 1, 1, 1), torch.tensor([0, 1, 2])
    assert mix_images(images, 0.75).flatten().tolist() == [2.0, 2.5, 4.5]
    assert mix_labels(labels, 0.75, 3).tolist() == [[0.75, 0, 0.25], [0.25, 0.75, 0], [0, 0.25, 0.75]]
    mixing = create_mixing(mixup=1.0, num_classes=3)
    assert mixing is not None
    mixed, soft = mixing(images, labels)
    share = float(soft[0, 0])
    assert torch.allclose(mixed, mix_images(images, share)) and torch.allclose(soft, mix_labels(labels, share, 3))


def test_partners_in_a_random_order() -> None:
    images, labels = torch.tensor([1.0, 3.0, 5.0]).view(3, 1, 1, 1), torch.tensor([0, 1, 2])
    order = torch.tensor([0, 2, 1])  # the first meets itself
    assert mix_images(images, 0.75, order).flatten().tolist() == [1.0, 3.5, 4.5]
    assert mix_labels(labels, 0.75, 3, order).tolist() == [[1, 0, 0], [0, 0.75, 0.25], [0, 0.25, 0.75]]
    mixing = create_mixing(mixup=1.0, num_classes=32, partners="permutation")
    assert mixing is not None
    torch.manual_seed(0)
    many = torch.arange(32)
    mixed, soft = mixing(many.float().view(32, 1, 1, 1), many)
    assert torch.allclose(mixed.flatten(), soft @ many.float(), atol=1e-4)  # of each the labels of what is in it
    met = [row.nonzero().flatten().tolist() for row in soft]
    others = [next((j for j in row if j != i), i) for i, row in enumerate(met)]
    assert sorted(others) == many.tolist() and others != many.roll(1).tolist()


def test_what_cannot_be_mixed() -> None:
    with pytest.raises(InputError, match="needs num_classes"):
        create_mixing(mixup=1.0, partners="permutation")
    with pytest.raises(InputError, match="permutation"):
        create_mixing(mixup=1.0, num_classes=3, partners="permuted")  # type: ignore[arg-type]
    for options in ({"mixup": -1.0}, {"cutmix": float("nan")}, {"mixup": float("inf")}):
        with pytest.raises(InputError, match=r"mixing\.\w+ is .*; expected alpha above 0"):
            create_mixing(num_classes=3, **options)  # type: ignore[arg-type]
    for labels in ([0, 3], [-1, 0]):
        with pytest.raises(InputError, match=r"labels from -?\d to \d cannot be mixed as 3 classes"):
            mix_labels(torch.tensor(labels), 0.5, 3)
    assert mix_labels(torch.zeros(0, dtype=torch.int64), 0.5, 3).shape == (0, 3)
