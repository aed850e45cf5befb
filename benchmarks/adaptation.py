"""Classical adaptation on features, without a network: figures that others have published, and between feature spaces.

    python benchmarks/adaptation.py office_caltech        # 12 pairs, nearest neighbour and CORAL; half a minute
    python benchmarks/adaptation.py heterogeneous         # MNIST's pixels to USPS's histograms of gradients; seconds

Data is what lies in the folder that OPSIN_DATA names: office_caltech10_surf, mnist and usps.

office_caltech: each histogram is divided by its sum, then each word is brought to mean 0 and variance 1 in its domain;
CORAL is with covariance + I. Nearest neighbours in the Euclidean distance, the whole of each domain.
heterogeneous: 2,000 digits of MNIST as 16x16 pixels; USPS as histograms of gradients, K labels a class of its training
images, drawn ten times; accuracy on its 2,007 test images of the nearest class mean by the K labels alone, and with
MNIST's digits mapped beside them.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import os
from pathlib import Path

import numpy as np

from opsin.adapt.coral import coral_map
from opsin.adapt.subspace import map_spaces, oriented_gradients

DOMAINS = {"amazon": "amazon", "caltech": "Caltech10", "dslr": "dslr", "webcam": "webcam"}
DIMS = 9


def data_folder() -> Path:
    return Path(os.environ.get("OPSIN_DATA", "."))


def read_surf(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Bags of words (N, 800), normalised, and labels (N,)."""
    import scipy.io

    content = scipy.io.loadmat(data_folder() / "office_caltech10_surf" / f"{DOMAINS[name]}_SURF_L10.mat")
    features = content["fts"].astype(np.float64)
    features /= features.sum(axis=1, keepdims=True)
    deviation = features.std(axis=0)
    return (features - features.mean(axis=0)) / np.where(deviation > 0, deviation, 1), content["labels"].ravel()


def nearest(known: np.ndarray, labels: np.ndarray, features: np.ndarray) -> np.ndarray:
    """The label of the nearest known example."""
    distances = np.square(known).sum(axis=1)[:, None] - 2 * known @ features.T
    return labels[distances.argmin(axis=0)]


def office_caltech() -> None:
    domains = {name: read_surf(name) for name in DOMAINS}
    rows = []
    for source, target in itertools.permutations(DOMAINS, 2):
        (one, labels), (other, truth) = domains[source], domains[target]
        plain = 100 * (nearest(one, labels, other) == truth).mean()
        mapped = 100 * (nearest(coral_map(one, other), labels, other) == truth).mean()
        rows.append((plain, mapped))
        print(f"{source:8} {target:8} nearest neighbour {plain:5.2f}   CORAL {mapped:5.2f}", flush=True)
    plain, mapped = np.mean(rows, axis=0)
    print(f"mean of 12         nearest neighbour {plain:5.2f}   CORAL {mapped:5.2f}   (published: 31.37 and 35.71)")


def read_idx(path: Path) -> np.ndarray:
    content = gzip.decompress(path.read_bytes())
    shape = [int.from_bytes(content[4 + 4 * k : 8 + 4 * k], "big") for k in range(content[3])]
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def shrink(images: np.ndarray) -> np.ndarray:
    """(N, 28, 28) -> (N, 16, 16): MNIST's digits stand in its middle 20x20, those of USPS fill the image."""
    import torch
    import torch.nn.functional as F

    middle = torch.from_numpy(images[:, None, 4:24, 4:24].copy()).float()
    return F.interpolate(middle, (16, 16), mode="bilinear", antialias=True)[:, 0].numpy()


def class_means(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.stack([features[labels == k].mean(axis=0) for k in range(10)])


def heterogeneous() -> None:
    mnist = data_folder() / "mnist"
    source = shrink(read_idx(mnist / "train-images-idx3-ubyte.gz")[:2000]).reshape(2000, -1)
    labels = read_idx(mnist / "train-labels-idx1-ubyte.gz")[:2000].astype(int)
    usps = np.load(next((data_folder() / "usps").glob("*.npz")))
    train, test = (oriented_gradients(usps[key].reshape(-1, 16, 16)) for key in ("train_x", "test_x"))
    truth, wanted = usps["train_y"].astype(int), usps["test_y"].astype(int)
    for count in (1, 3, 5, 10):
        alone, mapped = [], []
        for seed in range(10):
            random = np.random.RandomState(seed)
            chosen = np.concatenate([random.choice(np.flatnonzero(truth == k), count, False) for k in range(10)])
            few = np.full(len(train), -1)
            few[chosen] = truth[chosen]
            space = map_spaces(source, labels, train, few, DIMS)
            own, asked = space.of_target(train[chosen]), space.of_target(test)
            means = class_means(own, truth[chosen])
            alone.append((nearest(means, np.arange(10), asked) == wanted).mean())
            borrowed = class_means(space.of_source(source), labels)
            both = (count * means + 3 * borrowed) / (count + 3)  # the source counts as three labels a class
            mapped.append((nearest(both, np.arange(10), asked) == wanted).mean())
        print(
            f"{count:2} labels a class: target alone {100 * np.mean(alone):.2f} +- {100 * np.std(alone):.2f} %, with "
            f"MNIST's pixels mapped {100 * np.mean(mapped):.2f} +- {100 * np.std(mapped):.2f} %",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("office_caltech", "heterogeneous"))
    {"office_caltech": office_caltech, "heterogeneous": heterogeneous}[parser.parse_args().what]()
