"""LeNet-5, trained on handwritten digits with nothing but the files of this package.

LeCun, Bottou, Bengio and Haffner 1998, Proc. IEEE 86(11), section II-B, with today's layers (full C3, ReLU,
max pooling, softmax), 61,706 numbers to learn:

    image     1 x 32 x 32
    C1          6 x 28 x 28         5x5 convolution, ReLU
    S2          6 x 14 x 14         2x2 pooling
    C3         16 x 10 x 10         5x5 convolution, ReLU
    S4         16 x  5 x  5         2x2 pooling
    C5        120 x  1 x  1         5x5 convolution, ReLU: it covers the map, so it is a fully connected layer
    F6         84                   fully connected, ReLU
    output     10                   fully connected; softmax and cross-entropy in one

`forward` keeps what the layers passed on, `backward` walks the same lines upwards, and an update rule moves
the weights. That is all that training is. `python -m opsin.scratch.lenet` takes the 1,797 digits of 8x8
pixels that come with opsin.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from opsin.scratch.activations import relu, relu_slope
from opsin.scratch.adam import adam
from opsin.scratch.bilinear import resize
from opsin.scratch.cross_entropy import one_hot, softmax_cross_entropy, softmax_cross_entropy_backward
from opsin.scratch.im2col import convolve_im2col, convolve_im2col_backward
from opsin.scratch.linear import linear, linear_backward
from opsin.scratch.pooling import max_pool, max_pool_backward

Arrays = dict[str, np.ndarray]

DIGITS = Path(__file__).parents[1] / "data" / "samples" / "digits.npz"  # the one file of another room

SHAPES = {"c1": (6, 1, 5, 5), "c3": (16, 6, 5, 5), "c5": (120, 16, 5, 5), "f6": (84, 120), "out": (10, 84)}


def create_weights(rng: np.random.Generator) -> Arrays:
    """Normal of variance 2 / fan-in, with which ReLU layers keep their input's scale (He et al. 2015); biases 0."""
    weights: Arrays = {}
    for name, shape in SHAPES.items():
        fan_in = int(np.prod(shape[1:]))
        weights[name] = rng.normal(0, np.sqrt(2 / fan_in), shape).astype(np.float32)
        weights[f"{name}_bias"] = np.zeros(shape[0], np.float32)
    return weights


def forward(weights: Arrays, images: np.ndarray) -> tuple[np.ndarray, Arrays]:
    """images (B, 1, 32, 32) -> logits (B, 10), and what every layer saw, for backward."""
    seen: Arrays = {"images": images}
    seen["c1"], seen["c1_columns"] = convolve_im2col(images, weights["c1"], weights["c1_bias"])  # (B, 6, 28, 28)
    seen["s2"], seen["s2_place"] = max_pool(relu(seen["c1"]), 2, 2)  # (B, 6, 14, 14)
    seen["c3"], seen["c3_columns"] = convolve_im2col(seen["s2"], weights["c3"], weights["c3_bias"])  # (B, 16, 10, 10)
    seen["s4"], seen["s4_place"] = max_pool(relu(seen["c3"]), 2, 2)  # (B, 16, 5, 5)
    seen["c5"], seen["c5_columns"] = convolve_im2col(seen["s4"], weights["c5"], weights["c5_bias"])  # (B, 120, 1, 1)
    seen["c5_out"] = relu(seen["c5"])[:, :, 0, 0]  # (B, 120)
    seen["f6"] = linear(seen["c5_out"], weights["f6"], weights["f6_bias"])  # (B, 84)
    seen["f6_out"] = relu(seen["f6"])
    return linear(seen["f6_out"], weights["out"], weights["out_bias"]), seen


def backward(dlogits: np.ndarray, seen: Arrays, weights: Arrays) -> Arrays:
    """dL/dlogits (B, 10) -> dL/dweight for every weight: the lines of `forward` from the last to the first."""
    d: Arrays = {}
    dx, d["out"], d["out_bias"] = linear_backward(dlogits, seen["f6_out"], weights["out"])  # dx (B, 84)
    dx = dx * relu_slope(seen["f6"])
    dx, d["f6"], d["f6_bias"] = linear_backward(dx, seen["c5_out"], weights["f6"])  # (B, 120)
    dx = dx[:, :, None, None] * relu_slope(seen["c5"])
    dx, d["c5"], d["c5_bias"] = convolve_im2col_backward(dx, seen["c5_columns"], seen["s4"], weights["c5"])
    dx = max_pool_backward(dx, seen["s4_place"], seen["c3"], 2, 2) * relu_slope(seen["c3"])  # (B, 16, 10, 10)
    dx, d["c3"], d["c3_bias"] = convolve_im2col_backward(dx, seen["c3_columns"], seen["s2"], weights["c3"])
    dx = max_pool_backward(dx, seen["s2_place"], seen["c1"], 2, 2) * relu_slope(seen["c1"])  # (B, 6, 28, 28)
    _, d["c1"], d["c1_bias"] = convolve_im2col_backward(dx, seen["c1_columns"], seen["images"], weights["c1"])
    return d


def predict(weights: Arrays, images: np.ndarray) -> np.ndarray:
    """images (N, 1, 32, 32) -> classes (N,)."""
    parts = np.array_split(images, max(1, len(images) // 100))
    return np.concatenate([forward(weights, part)[0].argmax(axis=1) for part in parts])


def train(
    weights: Arrays, images: np.ndarray, labels: np.ndarray, epochs: int, rng: np.random.Generator, batch: int = 32
) -> Iterator[float]:
    """Change the weights by Adam, its rate falling linearly to nothing; gives the mean loss after every epoch."""
    targets = one_hot(labels, 10).astype(np.float32)
    memory: dict[str, dict[str, Any]] = {name: {} for name in weights}
    batches = len(images) // batch
    for rates in np.linspace(2e-3, 0, epochs * batches, endpoint=False).reshape(epochs, batches).tolist():
        losses = []
        for rate, chosen in zip(rates, np.array_split(rng.permutation(len(images)), batches), strict=True):
            # A digit a little further is the same digit: each is shifted by up to two pixels, anew every time.
            shifted = np.stack([np.roll(image, rng.integers(-2, 3, 2), axis=(1, 2)) for image in images[chosen]])
            logits, seen = forward(weights, shifted)
            losses.append(softmax_cross_entropy(logits, targets[chosen]))
            gradients = backward(softmax_cross_entropy_backward(logits, targets[chosen]), seen, weights)
            for name, gradient in gradients.items():
                weights[name] = adam(weights[name], gradient, memory[name], rate)
        yield float(np.mean(losses))


def to_input(images: np.ndarray) -> np.ndarray:
    """Images (N, 8, 8) of 0 ... 16 -> (N, 1, 32, 32): enlarged to 20x20 in the middle, as in the paper."""
    enlarged = resize(images.astype(np.float32) / 16, 20, 20)
    return np.pad(enlarged, ((0, 0), (6, 6), (6, 6)))[:, None]


def draw(image: np.ndarray) -> str:
    """An image (8, 8) of 0 ... 16 in characters."""
    return "\n".join("".join(" .:+*#@"[int(pixel) * 6 // 16] * 2 for pixel in row) for row in image)


def main(epochs: int = 20, seed: int = 0, show: Callable[[str], Any] = print) -> float:
    """Train on four fifths of the digits and give the accuracy on the rest."""
    rng = np.random.default_rng(seed)
    with np.load(DIGITS) as arrays:
        grids, labels = arrays["images"], arrays["labels"]
    images, order = to_input(grids), rng.permutation(len(labels))
    test, learn = order[:360], order[360:]
    weights = create_weights(rng)
    show(f"{len(learn)} digits to learn, {len(test)} to test, {sum(w.size for w in weights.values()):,} weights")
    start = time.perf_counter()
    for epoch, loss in enumerate(train(weights, images[learn], labels[learn], epochs, rng), 1):
        show(f"epoch {epoch:2}   loss {loss:.4f}   {time.perf_counter() - start:4.0f} s")
    answers = predict(weights, images[test])
    wrong = test[answers != labels[test]]
    accuracy = 1 - len(wrong) / len(test)
    show(f"test accuracy {accuracy:.2%}: {len(wrong)} of {len(test)} are wrong")
    for place, answer in zip(wrong[:2], answers[answers != labels[test]], strict=False):
        show(f"\na {labels[place]}, taken for a {answer}:\n{draw(grids[place])}")
    return accuracy


if __name__ == "__main__":
    main()
