"""Few-shot evaluation: Lake's runs, episodes and the Hausdorff distance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from opsin import data
from opsin.embed.few_shot import run_episodes, run_mixed, run_trials
from opsin.embed.hausdorff import hausdorff_distances, ink_points
from opsin.errors import InputError


def plain_hausdorff(first: np.ndarray, second: np.ndarray) -> float:
    """As Dubuisson and Jain write it, point by point."""
    forth = np.mean([min(float(np.linalg.norm(a - b)) for b in second) for a in first])
    back = np.mean([min(float(np.linalg.norm(a - b)) for a in first) for b in second])
    return float(max(forth, back))


def test_hausdorff_against_the_plain_formula() -> None:
    random = np.random.RandomState(0)
    drawings = [random.rand(n, 2) * 9 for n in (5, 1, 12, 7)]
    expected = np.array([[plain_hausdorff(a, b) for b in drawings] for a in drawings])
    np.testing.assert_allclose(hausdorff_distances(drawings, drawings), expected, rtol=1e-12)
    found = hausdorff_distances(drawings, drawings, np.eye(4, dtype=bool))
    assert np.isinf(found).sum() == 12


def test_ink_is_dark_and_centred() -> None:
    image = torch.full((1, 4, 6), 255, dtype=torch.uint8)
    image[0, 1, 2] = image[0, 1, 4] = 0
    assert ink_points(image).tolist() == [[0, -1], [0, 1]]
    with pytest.raises(InputError, match="no ink"):
        ink_points(torch.full((1, 3, 3), 255, dtype=torch.uint8))


@pytest.mark.real_data
def test_the_hausdorff_distance_makes_155_errors_of_400(data_dir: Path) -> None:
    """The figure that Lake's own demonstration gives: 38.75 % wrong."""
    split = data.open(data_dir / "omniglot/all_runs.zip", "embed").splits["test"]
    truth, points = split.kind, [ink_points(split.read(i)) for i in range(len(split))]
    asked, shown = np.flatnonzero(truth.query), np.flatnonzero(~truth.query)
    allowed = truth.run[asked][:, None] == truth.run[shown]
    distances = hausdorff_distances([points[i] for i in asked], [points[i] for i in shown], allowed)
    found = run_trials(distances, truth.labels[asked], truth.labels[shown], allowed)
    assert found.errors == 155
    assert found.accuracy == 245 / 400


def test_trials_by_hand() -> None:
    # two runs of two classes; without the runs the first query would be nearest to a drawing of the other
    distances = np.array([[2.0, 3, 1, 9], [5, 5, 9, 9], [0, 0, 4, 3], [0, 0, 3, 4]])
    allowed = np.array([[True, True, False, False]] * 2 + [[False, False, True, True]] * 2)
    found = run_trials(distances, np.array([0, 1, 3, 3]), np.arange(4), allowed)
    assert found.right.tolist() == [1, 0, 1, 0]  # of equal distances the first counts
    assert found.errors == 2
    assert found.interval == pytest.approx(1.96 * 0.57735 / 2, rel=1e-4)


def test_mixed_episodes_of_a_known_chance() -> None:
    # query i is nearest to support i, but for 0, which takes every support before its own
    distances = 1 - np.eye(20)
    distances[0, 0] = 2
    found = run_mixed(distances, ways=5, episodes=4000)
    # the first class is among five of twenty in a quarter of the episodes, and one of five answers is wrong then
    assert found.accuracy == pytest.approx(1 - 0.25 / 5, abs=0.005)
    assert run_mixed(distances, episodes=50).right.tolist() == run_mixed(distances, episodes=50).right.tolist()
    assert run_mixed(np.zeros((5, 5)), episodes=3).accuracy == pytest.approx(0.2)  # whoever says always the first
    with pytest.raises(InputError, match="6 ways of 5"):
        run_mixed(np.zeros((5, 5)), ways=6)


def test_episodes_by_prototypes() -> None:
    # four points on a circle each, two of which have their mean at its centre
    angles = torch.arange(4) * np.pi / 2
    circle = torch.stack([angles.cos(), angles.sin()], dim=1)
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    embeddings, labels = (centres[:, None] + circle).flatten(0, 1), np.repeat(np.arange(3), 4)
    assert run_episodes(embeddings, labels, ways=3, shots=2, episodes=20).accuracy == 1
    found = run_episodes(torch.zeros(12, 2), labels, ways=3, episodes=200)
    assert found.accuracy == pytest.approx(1 / 3, abs=1e-9)  # nothing tells apart: always the first
    with pytest.raises(InputError, match="3 identities have more than 1 image, and an episode takes 5"):
        run_episodes(embeddings, labels)
    with pytest.raises(InputError, match="0 identities have more than 4 images"):
        run_episodes(embeddings, labels, ways=2, shots=4)


def test_nobody_known_takes_no_part() -> None:
    embeddings = torch.tensor([[0.0], [0.1], [5.0], [5.1], [0.05], [5.05]])
    labels = np.array([0, 0, 1, 1, -1, -1])
    assert run_episodes(embeddings, labels, ways=2, episodes=30).accuracy == 1
