"""What the report draws: projections against scikit-learn, and every section of a split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness

from opsin import data
from opsin.embed.comparison import compare_all, compare_pairs, limit_images
from opsin.embed.evaluate import Evidence
from opsin.embed.few_shot import Shots
from opsin.embed.projection import neighbour_embedding, principal_components
from opsin.embed.report import sections
from opsin.embed.retrieval import retrieve
from opsin.embed.thresholds import Threshold, fit_probability, fit_threshold
from opsin.engine.evaluator import Result
from opsin.engine.report import Figure, Gallery, Table, render
from opsin.errors import InputError

from .tiny_people import write_people

pytestmark = pytest.mark.rendered


def test_principal_components_are_scikit_learns() -> None:
    points = np.random.RandomState(0).randn(40, 6) * np.array([5, 3, 1, 1, 0.5, 0.1]) + 7
    found, share = principal_components(points)
    reference = PCA(2).fit(points)
    np.testing.assert_allclose(np.abs(found), np.abs(reference.transform(points)), atol=1e-9)
    np.testing.assert_allclose(share, reference.explained_variance_ratio_, atol=1e-12)
    assert principal_components(np.ones((3, 5)))[0].tolist() == [[0, 0]] * 3
    assert principal_components(np.arange(3.0)[:, None])[0].shape == (3, 2)


def test_neighbours_stay_neighbours() -> None:
    """scikit-learn's measure of it: 1 if all are kept; a linear map of these loses a third."""
    random = np.random.RandomState(1)
    points = np.eye(8)[np.repeat(np.arange(8), 15)] * 6 + random.randn(120, 8)
    laid = neighbour_embedding(points)
    assert trustworthiness(points, laid, n_neighbors=8) > 0.93
    assert trustworthiness(points, principal_components(points)[0], n_neighbors=8) < 0.88
    assert np.isfinite(neighbour_embedding(np.zeros((30, 4)))).all()
    assert neighbour_embedding(points[:2]).shape == (2, 2)


def make_split(folder: Path) -> tuple[torch.Tensor, np.ndarray, data.Split]:
    split = data.open(write_people(folder, range(6)), "embed").splits["all"]
    labels = split.kind.labels
    noise = torch.from_numpy(np.random.RandomState(0).randn(len(labels), 6).astype(np.float32))
    return torch.eye(6)[torch.from_numpy(labels)] * 2 + 0.6 * noise, labels, split


def test_every_section_of_a_split(tmp_path: Path) -> None:
    embeddings, labels, split = make_split(tmp_path)
    comparison = compare_all(embeddings, labels)
    evidence = Evidence(embeddings, labels, comparison, retrieve(embeddings, labels))
    evidence.shots["5way_1shot_accuracy"] = Shots(np.array([1.0, 0.6]))
    names = ["auc", "eer", "tar@far=1e-2", "recall@1", "map@r", "5way_1shot_accuracy"]
    found = sections(Result(dict.fromkeys(names, 0.5), {}, evidence), split, fit_threshold(comparison, 0.05))
    titles = [one.title for one in found]
    assert titles == [
        "Distances of pairs", "Verification", "Retrieval", "Principal components", "t-SNE", "Few-shot learning",
        "Nearest pairs of two identities", "Farthest pairs of the same identity", "How to read the numbers",
    ]  # fmt: skip
    assert all(isinstance(one, Figure | Table | Gallery) for one in found)
    table = found[-1]
    assert isinstance(table, Table) and [row[0] for row in table.rows] == names
    pairs = found[6]
    assert isinstance(pairs, Gallery) and len(pairs.items) == 12 and " and " in pairs.items[0].caption
    page = render("People", {}, found)
    assert page.count("image/svg+xml") >= 5
    flat = sections(Result({}, {}, Evidence(embeddings[:, :2], labels)), split)
    assert [one.title for one in flat] == ["The embedding", "How to read the numbers"]


def test_comparison_of_all_is_that_of_listed_pairs(tmp_path: Path) -> None:
    embeddings, labels, _ = make_split(tmp_path)
    pairs = np.stack(np.triu_indices(len(labels), 1), axis=1)
    points = embeddings.double().numpy()
    distances = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)
    same = labels[pairs[:, 0]] == labels[pairs[:, 1]]
    one, two = compare_all(embeddings, labels), compare_pairs(distances, same, pairs, labels[pairs[:, 0]])
    assert one.roc.auc == pytest.approx(two.roc.auc, abs=1e-9)
    assert (one.different == two.different).all() and (one.same == two.same).all()
    assert [pair[1:] for pair in one.alike] == [pair[1:] for pair in two.alike]
    assert [pair[1:] for pair in one.unlike] == [pair[1:] for pair in two.unlike]
    assert (one.right(2.0) == two.right(2.0)).all() and one.counts.tolist() == [10] * 6
    slow = [int((distances[same & (labels[pairs[:, 0]] == k)] <= 2.0).sum()) for k in range(6)]
    assert one.right(2.0).tolist() == slow


def test_of_many_images_whole_identities_are_compared() -> None:
    labels = np.repeat(np.arange(100), 7)
    labels[::50] = -1
    chosen = limit_images(labels, 70)
    assert len(chosen) == 70 and (labels[chosen] >= 0).all()
    assert np.median(np.unique(labels[chosen], return_counts=True)[1]) >= 6
    assert len(limit_images(labels)) == (labels >= 0).sum()


def test_the_probability_is_that_of_the_histograms(tmp_path: Path) -> None:
    """Distances of N(1, .4) and N(2, .4), as many of each: the probability is sigmoid((3 - 2 d) / .32) by Bayes."""
    random = np.random.RandomState(0)
    distances = np.concatenate([1 + 0.4 * random.randn(20_000), 2 + 0.4 * random.randn(80_000)])
    same = np.arange(len(distances)) < 20_000
    pairs = np.zeros((len(distances), 2), np.int64)
    comparison = compare_pairs(np.abs(distances), same, pairs, np.zeros(len(distances), np.int64))
    slope, offset = fit_probability(comparison)
    assert slope == pytest.approx(1 / 0.16, rel=0.05) and -offset / slope == pytest.approx(1.5, abs=0.02)
    threshold = fit_threshold(comparison, 1e-2)
    assert threshold.probability(1.5) == pytest.approx(0.5, abs=0.02)
    assert threshold.distance == pytest.approx(2 - 2.326 * 0.4, abs=0.02)
    assert Threshold.from_dict(threshold.to_dict()) == threshold
    with pytest.raises(ValueError, match="cannot be"):
        Threshold.from_dict({**threshold.to_dict(), "distance": float("nan")})
    with pytest.raises(InputError, match="takes 1,000,000 pairs"):
        fit_threshold(comparison, 1e-6)
