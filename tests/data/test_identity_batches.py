"""P x K batches: what is in them, that every image comes, and that ranks and epochs agree."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from opsin import data
from opsin.data.identities import Identities
from opsin.data.identity_batches import IdentityBatches
from opsin.data.inputs import ImageArray
from opsin.data.source import Split
from opsin.errors import InputError

LABELS = np.repeat(np.arange(10), 12)


def test_a_batch_has_so_many_of_so_many() -> None:
    for batch in IdentityBatches(LABELS, 24, 4, seed=1)(0):
        assert len(set(batch.tolist())) == 24
        assert sorted(Counter(LABELS[batch]).values()) == [4] * 6
        assert (np.diff(LABELS[batch]) != 0).sum() == 5, "those of an identity stand together"


def test_all_come_equally_often() -> None:
    order = IdentityBatches(LABELS, 24, 4)
    seen = Counter(place for epoch in range(30) for batch in order(epoch) for place in batch.tolist())
    assert len(order(0)) == 5
    assert len(seen) == 120
    people = Counter(place // 12 for place in seen.elements())
    assert max(people.values()) - min(people.values()) <= 30 * 4, "within an epoch the deck is not dealt out"


def test_an_identity_of_few_gives_all_and_is_never_twice_in_a_batch() -> None:
    labels = np.array([0] * 9 + [1] * 2 + [2] + [3] * 9 + [-1] * 5)
    for epoch in range(20):
        for batch in IdentityBatches(labels, 12, 4)(epoch):
            counts = Counter(labels[batch].tolist())
            assert len(set(batch.tolist())) == len(batch)
            assert -1 not in counts
            assert counts[2] <= 1 and counts[1] <= 2


def test_too_few_identities_give_more_images_each() -> None:
    (batch, *_) = IdentityBatches(LABELS[:36], 24, 4)(0)
    assert Counter(LABELS[batch]) == {0: 8, 1: 8, 2: 8}


def test_an_epoch_is_the_same_again_and_another_is_not() -> None:
    first, again, other = (IdentityBatches(LABELS, 24, 4, seed=s) for s in (3, 3, 4))
    assert [b.tolist() for b in first(2)] == [b.tolist() for b in again(2)]
    assert [b.tolist() for b in first(2)] != [b.tolist() for b in first(3)]
    assert [b.tolist() for b in first(2)] != [b.tolist() for b in other(2)]


def test_two_processes_share_a_batch_and_a_resume_goes_on() -> None:
    images = ImageArray(torch.zeros(120, 1, 4, 4, dtype=torch.uint8), "images")
    split = Split(images, Identities(LABELS, [str(k) for k in range(10)]))
    order = IdentityBatches(LABELS, 24, 4)

    def loaded(rank: int, start: int = 0) -> list[list[int]]:
        loader = data.create_loader(split, None, batch_size=12, training=True, order=order, rank=rank, world_size=2)
        loader.position = (1, start)
        return [batch["index"].tolist() for batch in loader]

    parts = [loaded(0), loaded(1)]
    assert [a + b for a, b in zip(*parts, strict=True)] == [batch.tolist() for batch in order(1)]
    assert loaded(0, 3) == parts[0][3:]


def test_what_cannot_be_a_batch_is_refused_in_words() -> None:
    with pytest.raises(InputError, match="multiple"):
        IdentityBatches(LABELS, 26, 4)
    with pytest.raises(InputError, match="two or more identities"):
        IdentityBatches(LABELS, 4, 4)
