"""What one ATen operator costs: multiply-adds, floating-point operations, connections, and bytes moved.

docs/counting.md defines each count. An operator without a rule here is reported as not counted, never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor


@dataclass(frozen=True)
class Cost:
    """Of one call. activations: outputs of products."""

    macs: int = 0
    flops: int = 0
    connections: int = 0
    activations: int = 0


Arguments: TypeAlias = Sequence[Any]
Rule = Callable[[Arguments, Any], Cost]

# FLOPs for each element of the output. An elementary function (exp, tanh, sqrt, a sigmoid) is one, as an addition is.
BY_OUTPUT: Mapping[str, int] = {
    **dict.fromkeys(
        [
            "add",
            "sub",
            "rsub",
            "mul",
            "div",
            "neg",
            "abs",
            "maximum",
            "minimum",
            "fmod",
            "remainder",
            "relu",
            "sigmoid",
            "tanh",
            "exp",
            "exp2",
            "expm1",
            "log",
            "log2",
            "log1p",
            "sqrt",
            "rsqrt",
            "pow",
            "reciprocal",
            "erf",
            "sin",
            "cos",
            "floor",
            "ceil",
            "round",
            "trunc",
            "sign",
            "eq",
            "ne",
            "lt",
            "le",
            "gt",
            "ge",
            "clamp_min",
            "clamp_max",
            "threshold",
            "square",
            "floor_divide",
            "bernoulli",
        ],
        1,
    ),
    **dict.fromkeys(
        ["silu", "clamp", "hardtanh", "leaky_relu", "_prelu_kernel", "addcmul", "addcdiv", "relu6", "native_dropout"], 2
    ),
    **dict.fromkeys(["elu", "lerp", "softplus"], 3),  # exp, -1, scale; b - a, scale, add; exp, +1, log
    "hardsigmoid": 4,  # + 3, two clamps, / 6
    "hardswish": 5,  # as hardsigmoid, and the product
    "gelu": 5,  # x / 2 (1 + erf(x / sqrt 2))
    "mish": 5,  # softplus, tanh, product
    "_softmax": 5,  # maximum, subtraction, exp, sum, division
    "_safe_softmax": 5,
    "_log_softmax": 5,
    "upsample_bilinear2d": 7,  # four products, three sums
    "_upsample_bilinear2d_aa": 7,
    "upsample_bicubic2d": 31,  # sixteen products, fifteen sums
    "grid_sampler_2d": 7,
}

# FLOPs for each element of the input.
_BY_INPUT: Mapping[str, int] = {
    **dict.fromkeys(["sum", "mean", "amax", "amin", "max", "min", "argmax", "argmin", "aminmax", "prod", "cumsum"], 1),
    **dict.fromkeys(["linalg_vector_norm", "norm"], 2),  # square, sum
    **dict.fromkeys(["var", "var_mean", "std", "std_mean"], 4),  # mean, difference, square, sum
    "logsumexp": 4,
}

# Not a floating-point operation: shapes, copies, choices, and filling. They may move bytes.
_FREE = frozenset(
    [
        "view",
        "_unsafe_view",
        "_reshape_alias",
        "reshape",
        "expand",
        "permute",
        "transpose",
        "t",
        "select",
        "slice",
        "unsqueeze",
        "squeeze",
        "unbind",
        "split",
        "split_with_sizes",
        "unsafe_split",
        "chunk",
        "detach",
        "alias",
        "as_strided",
        "unfold",
        "movedim",
        "lift_fresh",
        "diagonal",
        "view_as",
        "narrow",
        "cat",
        "stack",
        "clone",
        "copy",
        "_to_copy",
        "contiguous",
        "constant_pad_nd",
        "reflection_pad2d",
        "replication_pad2d",
        "pad",
        "index",
        "gather",
        "index_select",
        "take_along_dim",
        "embedding",
        "where",
        "masked_fill",
        "fill",
        "zero",
        "zeros",
        "ones",
        "full",
        "empty",
        "empty_like",
        "zeros_like",
        "ones_like",
        "full_like",
        "new_zeros",
        "new_ones",
        "new_empty",
        "new_full",
        "empty_strided",
        "scalar_tensor",
        "arange",
        "repeat",
        "roll",
        "flip",
        "triu",
        "tril",
        "pixel_shuffle",
        "pixel_unshuffle",
        "channel_shuffle",
        "upsample_nearest2d",
        "im2col",
        "logical_not",
        "logical_and",
        "logical_or",
        "bitwise_and",
        "bitwise_or",
        "bitwise_not",
        "any",
        "all",
        "eye",
        "linspace",
        "isnan",
        "isinf",
        "_local_scalar_dense",
        "item",
    ]
)

# Aliases of their input that their schema does not say are.
_VIEWS = frozenset(("_unsafe_view", "unsafe_split", "_reshape_alias", "lift_fresh"))
_EMPTY = frozenset(("empty", "empty_like", "new_empty", "empty_strided"))


def operator_name(func: Any) -> str:
    """`aten.add_.Tensor` -> add: without namespace, overload and the sign of working in place."""
    name = func._schema.name.partition("::")[2]
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def is_view(func: Any) -> bool:
    """Whether it only looks at its input in another way, and so moves nothing."""
    if operator_name(func) in _VIEWS:
        return True
    aliases = [r.alias_info for r in func._schema.returns]
    return bool(aliases) and all(a is not None and not a.is_write for a in aliases)


def cost_of(func: Any, args: Arguments, output: Any) -> Cost | None:
    """The cost of a call; None where there is no rule."""
    name = operator_name(func)
    rule = _PRODUCTS.get(name) or _OTHERS.get(name)
    if rule is not None:
        return rule(args, output)
    if is_view(func) or name in _FREE:
        return Cost()
    first = output if isinstance(output, Tensor) else next((o for o in output or () if isinstance(o, Tensor)), None)
    if name in _BY_INPUT and isinstance(args[0], Tensor):
        return Cost(flops=_BY_INPUT[name] * args[0].numel())
    if name in BY_OUTPUT and first is not None:
        return Cost(flops=BY_OUTPUT[name] * first.numel())
    return None


def is_product(func: Any) -> bool:
    """Whether it is a convolution or a matrix product: what papers count."""
    return operator_name(func) in _PRODUCTS


def bytes_of(func: Any, args: Iterable[Any], output: Any) -> tuple[int, int]:
    """(read, written) by one call: every tensor once, no cache in between, as in eager execution. A view moves none.

    An expanded dimension is read once. An operation in place reads and writes.
    """
    if is_view(func) or operator_name(func) in _EMPTY:
        return 0, 0
    reads = {id(t): t for t in tensors_in(args)}
    if operator_name(func) in ("copy", "fill", "zero") and reads:
        reads.pop(next(iter(reads)))  # the target is only written
    return sum(map(_stored, reads.values())), sum(map(_stored, {id(t): t for t in tensors_in(output)}.values()))


def tensors_in(values: Any) -> list[Tensor]:
    """All tensors in nested lists, tuples and mappings, in order."""
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, Mapping):
        values = values.values()
    elif not isinstance(values, list | tuple):
        return []
    return [t for value in values for t in tensors_in(value)]


def _stored(tensor: Tensor) -> int:
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    return math.prod(n for n, stride in steps if stride or n == 0) * tensor.element_size()


def _product(macs: int, output: Tensor, bias: bool, extra_flops: int = 0) -> Cost:
    biases = output.numel() if bias else 0
    return Cost(macs, 2 * macs + biases + extra_flops, macs + biases, output.numel())


def _convolution(args: Arguments, output: Tensor) -> Cost:
    images, weight, bias, transposed = args[0], args[1], args[2], args[6]
    # weight: (out, in / groups, *kernel), transposed (in, out / groups, *kernel): each output (transposed: input)
    # place takes part in all products of its slice
    places = images.shape[0] * math.prod((images if transposed else output).shape[2:])
    return _product(places * weight.numel(), output, bias is not None)


def _deformable(args: Arguments, output: Tensor) -> Cost:
    images, weight, modulated = args[0], args[1], args[-1]
    places = output.shape[0] * math.prod(output.shape[2:])
    samples = places * images.shape[1] * math.prod(weight.shape[2:])
    # each sample is read between four pixels: four products and three sums, and one by its mask
    return _product(places * weight.numel(), output, True, samples * (8 if modulated else 7))


def _matrices(first: int, bias: bool) -> Rule:
    """A product of args[first] (..., n, k) and args[first + 1]: every number of the output sums k products."""

    def rule(args: Arguments, output: Tensor) -> Cost:
        return _product(output.numel() * args[first].shape[-1], output, bias)

    return rule


def _linear(args: Arguments, output: Tensor) -> Cost:
    return _product(output.numel() * args[0].shape[-1], output, len(args) > 2 and args[2] is not None)


def _distances(args: Arguments, output: Tensor) -> Cost:
    return Cost(flops=output.numel() * 3 * args[0].shape[-1])  # difference, square, sum


def _attention(args: Arguments, outputs: Any) -> Cost:
    """Both products of attention, and scale and softmax between them; the projections are layers of their own."""
    query, key, value = args[:3]
    output = tensors_in(outputs)[0]
    weights = math.prod(query.shape[:-1]) * key.shape[-2]
    return _product(weights * (query.shape[-1] + value.shape[-1]), output, False, 6 * weights)


def _pooling(args: Arguments, outputs: Any) -> Cost:
    """Every output compares or sums its window: as many operations as the window has places, padding included."""
    output = tensors_in(outputs)[0]
    spatial = len(args[1])
    window = math.prod(args[1]) if spatial > 1 else args[1][0] ** max(output.ndim - 2, 1)
    return Cost(flops=window * output.numel(), connections=window * output.numel())


def _adaptive_pooling(args: Arguments, outputs: Any) -> Cost:
    """As a pooling; the windows of an output of m places over n are from floor(i n / m) to ceil((i + 1) n / m)."""
    output, image = tensors_in(outputs)[0], args[0]
    spatial = len(args[1]) if isinstance(args[1], list | tuple) else 1
    places = [
        sum(-((-(i + 1) * n) // m) - i * n // m for i in range(m))
        for n, m in zip(image.shape[-spatial:], output.shape[-spatial:], strict=True)
    ]
    reads = math.prod(output.shape[:-spatial]) * math.prod(places)
    return Cost(flops=reads, connections=reads)


def _batch_norm(args: Arguments, outputs: Any) -> Cost:
    """In eval a channel's mean, variance, scale and shift are one multiplication and one addition for each element."""
    return Cost(flops=2 * tensors_in(outputs)[0].numel())


def _group_norm(args: Arguments, outputs: Any) -> Cost:
    """Mean, difference, square and its mean, scale: 5; the learned scale and shift 2 more. Layer norm as well."""
    learned = any(isinstance(a, Tensor) for a in args[1:])
    return Cost(flops=(7 if learned else 5) * tensors_in(outputs)[0].numel())


_PRODUCTS: Mapping[str, Rule] = {
    "convolution": _convolution,
    "_convolution": _convolution,
    "convolution_overrideable": _convolution,
    "deform_conv2d": _deformable,
    "mm": _matrices(0, False),
    "bmm": _matrices(0, False),
    "mv": _matrices(0, False),
    "dot": _matrices(0, False),
    "vdot": _matrices(0, False),
    "addmm": _matrices(1, True),
    "addmv": _matrices(1, True),
    "baddbmm": _matrices(1, True),
    "linear": _linear,
    **{
        f"_scaled_dot_product_{kind}": _attention
        for kind in (
            "flash_attention", "flash_attention_for_cpu", "efficient_attention", "cudnn_attention",
            "fused_attention_overrideable", "attention_math",
        )
    },
}  # fmt: skip

_OTHERS: Mapping[str, Rule] = {
    "native_batch_norm": _batch_norm,
    "_native_batch_norm_legit": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "cudnn_batch_norm": _batch_norm,
    "batch_norm": _batch_norm,
    "native_layer_norm": _group_norm,
    "native_group_norm": _group_norm,
    **{f"max_pool{n}d_with_indices": _pooling for n in (1, 2, 3)},
    **{f"{kind}_pool{n}d": _pooling for kind in ("max", "avg") for n in (1, 2, 3)},
    **{f"adaptive_{kind}_pool{n}d": _adaptive_pooling for kind in ("max", "avg") for n in (1, 2, 3)},
    **{f"_adaptive_avg_pool{n}d": _adaptive_pooling for n in (2, 3)},
    "_cdist_forward": _distances,
}  # fmt: skip
