"""Activations: what bends. Without one between them, two linear layers are one linear layer.

Each acts on every number alone, so backward is dx = dy * slope(x), and each function here stands above its
slope. At a kink the slope is the flatter one of both sides, as in torch.

    sigmoid, tanh           saturate at both ends: their slope, and with it what lies before them, dies there
    ReLU                    slope 1 or 0: cheap, does not saturate above, but a unit that is never above 0 stays dead
    leaky ReLU, PReLU, ELU  let something through below 0; PReLU learns how much
    swish, mish, GELU       smooth, and slightly negative before they rise
    ReLU6, hard-sigmoid,    straight pieces, for fixed-point arithmetic on phones
    hard-swish
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from opsin.scratch.sigmoid import sigmoid, softplus


def sigmoid_slope(x: np.ndarray) -> np.ndarray:
    """s (1 - s), at most 1/4."""
    return sigmoid(x) * sigmoid(-x)


def tanh(x: np.ndarray) -> np.ndarray:
    """(e^x - e^-x) / (e^x + e^-x) = 2 sigmoid(2x) - 1: a sigmoid around 0."""
    return np.tanh(x)


def tanh_slope(x: np.ndarray) -> np.ndarray:
    """1 - tanh(x)^2, at most 1."""
    return 1 - np.tanh(x) ** 2


def relu(x: np.ndarray) -> np.ndarray:
    """max(x, 0). Nair and Hinton 2010; Krizhevsky et al. 2012 (AlexNet)."""
    return np.maximum(x, 0)


def relu_slope(x: np.ndarray) -> np.ndarray:
    """1 above 0, else 0."""
    return (x > 0).astype(x.dtype)


def leaky_relu(x: np.ndarray, leak: float = 0.01) -> np.ndarray:
    """x above 0, leak * x below. Maas et al. 2013."""
    return np.where(x > 0, x, leak * x)


def leaky_relu_slope(x: np.ndarray, leak: float = 0.01) -> np.ndarray:
    """1 above 0, else the leak."""
    return np.where(x > 0, 1, leak).astype(x.dtype)


def elu(x: np.ndarray, alpha: float = 1.0) -> np.ndarray:
    """x above 0, alpha (e^x - 1) below: saturates at -alpha. Clevert et al. 2016, arXiv:1511.07289."""
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def elu_slope(x: np.ndarray, alpha: float = 1.0) -> np.ndarray:
    """1 above 0, alpha e^x below."""
    return np.where(x > 0, 1, alpha * np.exp(np.minimum(x, 0)))


def relu6(x: np.ndarray) -> np.ndarray:
    """min(max(x, 0), 6): 6, so that few bits go a long way. Krizhevsky 2010; MobileNet."""
    return np.clip(x, 0, 6)


def relu6_slope(x: np.ndarray) -> np.ndarray:
    """1 between 0 and 6, else 0."""
    return ((x > 0) & (x < 6)).astype(x.dtype)


def swish(x: np.ndarray) -> np.ndarray:
    """x sigmoid(x), also called SiLU. Ramachandran et al. 2017, arXiv:1710.05941."""
    return x * sigmoid(x)


def swish_slope(x: np.ndarray) -> np.ndarray:
    """s + x s (1 - s)."""
    return sigmoid(x) * (1 + x * sigmoid(-x))


def hard_sigmoid(x: np.ndarray) -> np.ndarray:
    """min(max(x + 3, 0), 6) / 6: three straight pieces. Howard et al. 2019 (MobileNetV3), arXiv:1905.02244."""
    return np.clip(x + 3, 0, 6) / 6


def hard_sigmoid_slope(x: np.ndarray) -> np.ndarray:
    """1/6 between -3 and 3, else 0."""
    return ((x > -3) & (x < 3)).astype(x.dtype) / 6


def hard_swish(x: np.ndarray) -> np.ndarray:
    """x hard_sigmoid(x). Howard et al. 2019 (MobileNetV3), arXiv:1905.02244."""
    return x * hard_sigmoid(x)


def hard_swish_slope(x: np.ndarray) -> np.ndarray:
    """0 below -3, x / 3 + 1/2 up to 3, then 1."""
    return hard_sigmoid(x) + x * hard_sigmoid_slope(x)


def mish(x: np.ndarray) -> np.ndarray:
    """x tanh(softplus(x)). Misra 2019, arXiv:1908.08681; YOLOv4."""
    return x * np.tanh(softplus(x))


def mish_slope(x: np.ndarray) -> np.ndarray:
    """t + x (1 - t^2) sigmoid(x), with t = tanh(softplus(x))."""
    t = np.tanh(softplus(x))
    return t + x * (1 - t**2) * sigmoid(x)


def normal_cdf(x: np.ndarray) -> np.ndarray:
    """The share of a standard normal distribution below x, (1 + erf(x / sqrt 2)) / 2. NumPy has no erf of its own."""
    return (0.5 * np.vectorize(math.erfc, otypes=[float])(-x / math.sqrt(2))).astype(x.dtype)


def gelu(x: np.ndarray) -> np.ndarray:
    """x times the normal distribution's share below x. Hendrycks and Gimpel 2016, arXiv:1606.08415."""
    return x * normal_cdf(x)


def gelu_slope(x: np.ndarray) -> np.ndarray:
    """The share below x, plus x times the density at x."""
    return normal_cdf(x) + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)


def prelu(x: np.ndarray, leak: np.ndarray) -> np.ndarray:
    """A leaky ReLU that learns its leak (C,), one a channel of x (B, C, ...). He et al. 2015, arXiv:1502.01852."""
    return np.where(x > 0, x, _along_channels(leak, x) * x)


def prelu_backward(dy: np.ndarray, x: np.ndarray, leak: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """dy (B, C, ...) -> dx (B, C, ...), dleak (C,)."""
    dx = dy * np.where(x > 0, 1, _along_channels(leak, x))
    others = tuple(axis for axis in range(x.ndim) if axis != 1)
    return dx, (dy * np.minimum(x, 0)).sum(axis=others)


def _along_channels(vector: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(C,) -> (C, 1, 1, ...), to multiply (B, C, ...)."""
    return vector.reshape(-1, *[1] * (x.ndim - 2))


Function = Callable[[np.ndarray], np.ndarray]

ACTIVATIONS: dict[str, tuple[Function, Function]] = {
    "sigmoid": (sigmoid, sigmoid_slope),
    "tanh": (tanh, tanh_slope),
    "relu": (relu, relu_slope),
    "leaky_relu": (leaky_relu, leaky_relu_slope),
    "elu": (elu, elu_slope),
    "relu6": (relu6, relu6_slope),
    "swish": (swish, swish_slope),
    "hard_sigmoid": (hard_sigmoid, hard_sigmoid_slope),
    "hard_swish": (hard_swish, hard_swish_slope),
    "mish": (mish, mish_slope),
    "gelu": (gelu, gelu_slope),
}


if __name__ == "__main__":
    x = np.array([-4.0, -1.0, 0.5, 1.0, 7.0])
    print(f"{'x':14}", *(f"{number:8.1f}" for number in x))
    for name, (function, slope) in ACTIVATIONS.items():
        print(f"{name:14}", *(f"{number:8.4f}" for number in function(x)))
        print(f"{'  its slope':14}", *(f"{number:8.4f}" for number in slope(x)))
