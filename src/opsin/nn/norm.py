"""Normalisation layers that torch lacks, or has with other constants."""

from __future__ import annotations

from torch import nn


def alexnet_lrn() -> nn.LocalResponseNorm:
    """Local response normalisation with the constants of Krizhevsky et al. 2012, section 3.3.

    b_i = a_i / (k + alpha * sum of a_j^2 over the n channels around i)^beta; n = 5, k = 2, alpha = 1e-4, beta = 0.75.
    """
    # torch and Caffe divide alpha by n, the paper's formula does not: hence n * 1e-4. Caffe's own AlexNet passes 1e-4
    # and k = 1, which normalises less than the paper's (BVLC/caffe issue 1453).
    return nn.LocalResponseNorm(size=5, alpha=5e-4, beta=0.75, k=2.0)
