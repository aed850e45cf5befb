from __future__ import annotations

import pytest
import torch

from opsin.structures import Instances


def three() -> Instances:
    return Instances(
        boxes=torch.arange(12.0).view(3, 4),
        labels=torch.tensor([5, 6, 7]),
        scores=torch.tensor([0.9, 0.8, 0.7]),
        masks=torch.zeros(3, 2, 2, dtype=torch.bool),
        points=torch.zeros(3, 1, 2),
        polygons=[torch.zeros(4, 2), torch.ones(3, 2), torch.zeros(5, 2)],
        texts=["a", "b", "c"],
        ids=torch.tensor([1, 2, 3]),
    )


@pytest.mark.parametrize(
    ("index", "labels"),
    [
        (torch.tensor([True, False, True]), [5, 7]),
        (torch.tensor([2, 0, 0]), [7, 5, 5]),
        (torch.tensor([-1]), [7]),
        (torch.tensor([], dtype=torch.int64), []),
        (torch.zeros(3, dtype=torch.bool), []),
        (slice(1, None), [6, 7]),
    ],
)
def test_fields_are_chosen_together(index: torch.Tensor | slice, labels: list[int]) -> None:
    instances = three()
    chosen = instances[index]
    assert chosen.labels is not None and chosen.polygons is not None and chosen.texts is not None
    assert chosen.labels.tolist() == labels
    assert chosen.texts == ["abc"[label - 5] for label in labels]
    assert [len(p) for p in chosen.polygons] == [{5: 4, 6: 3, 7: 5}[label] for label in labels]
    assert chosen.boxes[:, 0].tolist() == [4.0 * (label - 5) for label in labels]
    assert len(chosen) == len(labels) and len(instances) == 3


def test_absent_fields_stay_absent() -> None:
    chosen = Instances(torch.zeros(2, 4))[:1]
    assert len(chosen) == 1 and chosen.labels is None and chosen.texts is None


def test_none_at_all() -> None:
    assert len(Instances(torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64), texts=[])) == 0


def test_lengths_and_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"boxes must be \(N, 4\), got \(3,\)"):
        Instances(torch.zeros(3))
    with pytest.raises(ValueError, match="texts has length 1, boxes have 2"):
        Instances(torch.zeros(2, 4), texts=["one"])
