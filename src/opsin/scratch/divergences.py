"""How far apart two distributions are: Kullback-Leibler, Jensen-Shannon, Wasserstein.

    KL(p, q) = sum p ln(p / q)        what coding p with q's code costs more; infinite where q is 0 and p is not
    JS(p, q) = (KL(p, m) + KL(q, m)) / 2,    m = (p + q) / 2        symmetric, at most ln 2
    W(p, q)  = min over transports of the mean distance        on a line: the area between the sums of p and of q

Where p and q do not meet, KL is infinite and JS is ln 2 however far they are: neither has a gradient that says where to
go, which is what Arjovsky et al. 2017 (arXiv:1701.07875) hold against them, and W does.

KL to a softmax, the loss of distillation (Hinton et al. 2015, arXiv:1503.02531): with q = softmax(z), dL/dz = q - p.
"""

from __future__ import annotations

import numpy as np

from opsin.scratch.softmax import log_softmax, softmax


def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """p and q (..., K) in rows that sum to 1 -> (...), in nats; infinite where p has what q has not."""
    with np.errstate(divide="ignore"):
        terms = p * (np.log(np.where(p > 0, p, 1)) - np.log(np.where(p > 0, q, 1)))
    return terms.sum(axis=-1)


def js(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """p and q (..., K) -> (...), between 0 and ln 2."""
    middle = (p + q) / 2
    return (kl(p, middle) + kl(q, middle)) / 2


def wasserstein(p: np.ndarray, q: np.ndarray, places: np.ndarray) -> np.ndarray:
    """p and q (..., K) at places (K,) on a line, ascending -> (...): W1, in the unit of the places."""
    return (np.abs(np.cumsum(p - q, axis=-1))[..., :-1] * np.diff(places)).sum(axis=-1)


def kl_to_softmax(logits: np.ndarray, targets: np.ndarray) -> float:
    """KL(targets, softmax(logits)), both (B, K), as a mean over the batch."""
    entropy = (targets * np.log(np.where(targets > 0, targets, 1))).sum(axis=1)
    return float((entropy - (targets * log_softmax(logits)).sum(axis=1)).mean())


def kl_to_softmax_backward(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """dL/dlogits (B, K), for targets in rows that sum to 1."""
    return (softmax(logits) - targets) / len(logits)


if __name__ == "__main__":
    places = np.arange(5.0)
    p = np.array([1.0, 0, 0, 0, 0])
    for shift in (0, 1, 4):
        q = np.roll(p, shift)
        print(f"moved by {shift}:  KL {kl(p, q):5.3f}   JS {js(p, q):.3f}   W {wasserstein(p, q, places):.1f}")
    print("ln 2 is", round(float(np.log(2)), 3))
