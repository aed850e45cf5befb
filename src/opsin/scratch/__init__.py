"""Every operation of the field written out once in NumPy, forward and backward, to be read.

One idea a file, and each runs alone: `python -m opsin.scratch.convolution` prints an example small enough to
check with a pencil. Nothing here is fast and nothing of opsin uses it; the tests hold all of it equal to
torch.

How to read it. L is the loss, whatever it is; `dy` is dL/dy, of the shape of y. Where the forward pass is

    y = f(x, weight)

the backward pass takes dy and gives dL/d(argument) for the arguments of f, in their order:

    dx, dweight = f_backward(dy, x, weight)

It is the chain rule, read from right to left. What f found out on its way and its backward pass needs again
(the place of a maximum, a mean and a variance) is returned behind y and goes in behind dy.

In this order it tells a story:

    a layer         numerical_gradient, linear, convolution, im2col, transposed_convolution,
                    pooling, receptive_field, padding
    and cheaper     winograd, factorised_convolution
    what bends      sigmoid, activations, softmax, cross_entropy
    what steadies   batch_norm, group_norm, l2_norm, response_norm, dropout, dropconnect, mixup
    what looks      squeeze_excitation, pyramid_pooling, atrous_pyramid
    what pulls      label_smoothing, focal_loss, smooth_l1, wing_loss, giou, contrastive_loss,
                    triplet_loss, centre_loss, divergences, gumbel_softmax
    what learns     sgd, adaptive_rates, adam, ranger
    a network       lenet: all of the above read handwritten digits
    sequences       rnn, lstm, gru, attention, multi_head_attention, ctc
    geometry        iou, nms, bilinear, upsampling, volume_integral
"""

import importlib
from pathlib import Path
from typing import Any


def __getattr__(name: str) -> Any:
    """A file of this package as an attribute: `opsin.scratch.iou`."""
    if name.startswith("_") or not (Path(__file__).parent / f"{name}.py").is_file():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
