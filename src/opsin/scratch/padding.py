"""Padding in three frameworks: the same layer, other pixels. For a size n, a kernel k and a stride s:

    PyTorch     p zeros on both sides; floor((n + 2 p - k) / s) + 1 places
    TensorFlow  "SAME": ceil(n / s) places, whatever that takes; an odd pixel of border is put behind
    Caffe       as PyTorch, but pooling rounds up: a last window may begin inside and end outside

With k = 3, s = 2 and an even n, PyTorch with p = 1 has its windows around pixels 0, 2, 4 and TensorFlow around 1, 3, 5:
the same number of places, half a stride apart. Weights that are moved from one to the other without this give a
network that sees a moved image, and loses a point or two without an error.
"""

from __future__ import annotations

import numpy as np


def torch_places(n: int, k: int, s: int, p: int) -> list[int]:
    """The first pixel of each window; negative ones lie in the border."""
    return [place * s - p for place in range((n + 2 * p - k) // s + 1)]


def tensorflow_border(n: int, k: int, s: int) -> tuple[int, int]:
    """How many zeros "SAME" puts before and behind."""
    total = max((-(-n // s) - 1) * s + k - n, 0)
    return total // 2, total - total // 2


def tensorflow_places(n: int, k: int, s: int) -> list[int]:
    """The first pixel of each window."""
    return [place * s - tensorflow_border(n, k, s)[0] for place in range(-(-n // s))]


def caffe_pool_places(n: int, k: int, s: int, p: int) -> list[int]:
    """The first pixel of each window of a pooling: rounded up, and none that begins behind image and border."""
    count = -(-(n + 2 * p - k) // s) + 1
    if p and (count - 1) * s >= n + p:
        count -= 1
    return [place * s - p for place in range(count)]


def pool_line(x: np.ndarray, places: list[int], k: int) -> np.ndarray:
    """The maximum of each window over what of it lies inside, x (n,) -> (places,)."""
    return np.array([x[max(first, 0) : first + k].max() for first in places])


if __name__ == "__main__":
    for n in (7, 8):
        print(f"n = {n}, k = 3, s = 2: the middles of the windows")
        print("  PyTorch, p = 1  ", [first + 1 for first in torch_places(n, 3, 2, 1)])
        print("  TensorFlow SAME ", [first + 1 for first in tensorflow_places(n, 3, 2)])
        print("  Caffe, pooling  ", [first + 1 for first in caffe_pool_places(n, 3, 2, 0)], "with p = 0")
