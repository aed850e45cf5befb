"""Winograd's convolution: a 3x3 kernel on tiles, with 16 products for 4 outputs instead of 36.

Lavin and Gray 2015, arXiv:1509.09308. On a line, F(2, 3): two outputs of a kernel g of three, from four numbers d,

    y = A^T [(G g) * (B^T d)]        4 products instead of 6: * is number by number

and in two dimensions the same on both sides, for tiles of 4x4 numbers that overlap by two:

    Y = A^T [(G g G^T) * (B^T d B)] A

Transforms are sums and halves; the kernel's is done once. Over channels the products are added before the last
transform, which therefore is done once for each output. It is the same convolution: only rounding differs.
"""

from __future__ import annotations

import numpy as np

B = np.array([[1.0, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]]).T  # (4, 4)
G = np.array([[1.0, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])  # (4, 3)
A = np.array([[1.0, 1, 1, 0], [0, 1, -1, -1]]).T  # (4, 2)


def winograd_line(d: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Four numbers d and a kernel g of three -> the two places where it fits."""
    return A.T @ ((G @ g) * (B.T @ d))


def winograd(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """x (B, C, H, W), weight (O, C, 3, 3) -> y (B, O, H - 2, W - 2): stride 1, no padding."""
    batch, _, height, width = x.shape
    rows, columns = -(-(height - 2) // 2), -(-(width - 2) // 2)  # tiles, the last ones filled up with zeros
    x = np.pad(x, ((0, 0), (0, 0), (0, 2 * rows + 2 - height), (0, 2 * columns + 2 - width)))
    kernels = np.einsum("iu,ocuv,jv->ocij", G, weight, G)  # (O, C, 4, 4), once
    y = np.zeros((batch, len(weight), 2 * rows, 2 * columns))
    for i in range(rows):
        for j in range(columns):
            tile = x[:, :, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4]
            turned = np.einsum("ui,bcuv,vj->bcij", B, tile, B)
            products = np.einsum("bcij,ocij->boij", turned, kernels)  # added over channels here
            y[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2] = np.einsum("im,boij,jn->bomn", A, products, A)
    return y[:, :, : height - 2, : width - 2]


if __name__ == "__main__":
    d, g = np.array([1.0, 2, 3, 4]), np.array([1.0, 0, -1])
    print("d", d, "  g", g)
    print("the kernel, turned  ", G @ g)
    print("the numbers, turned ", B.T @ d)
    print("four products       ", (G @ g) * (B.T @ d))
    print("y                   ", winograd_line(d, g), "  by hand:", [float(d[k : k + 3] @ g) for k in (0, 1)])
    print("products of a 3x3 on a tile of 2x2: 16 instead of", 4 * 9)
