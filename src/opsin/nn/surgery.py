"""Surgery on trained networks: linear layers as convolutions and back, batch norms folded, linear layers decomposed.

Nothing changes the model that it is given: the result is a copy.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights
from torch.nn.utils.parametrize import is_parametrized
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from opsin.errors import InputError
from opsin.nn.activation import Swish
from opsin.nn.counting import count_macs, count_parameters, meta_twin

InputSize = tuple[int, int, int]
Network = TypeVar("Network", bound=nn.Module)

# What does the same to each number wherever it stands, in a vector or in a map.
_ELEMENTWISE = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SiLU, nn.Mish, nn.GELU, nn.Hardswish, nn.Hardsigmoid),
    *(nn.Sigmoid, nn.Tanh, nn.Dropout, nn.Identity, Swish),
)
# Up to about here a matrix product over cut-out windows is faster than torch's convolution, which on a CPU first orders
# the weights anew, at every call: VGG-16's fc6 in 0.02 s instead of 0.34 for one window, 0.11 for 36 (one core).
_FEW_WINDOWS = 128
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_FOLDING = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED)


@dataclass(frozen=True)
class Surgery(Generic[Network]):
    """What came of it, and what it saves.

    changed: names of the layers that were converted, folded or decomposed. params, macs: as `opsin.nn.counting` counts
    them, macs for one input. norm_macs: multiply-adds of the batch norms that are gone, one for every number of their
    maps; they are no part of macs. kept_energy: share of the squared singular values.
    """

    model: Network
    changed: tuple[str, ...]
    params_before: int
    params_after: int
    macs_before: int
    macs_after: int
    norm_macs: int = 0
    kept_energy: float = 1.0

    @property
    def params_saved(self) -> int:
        """Fewer parameters; negative if there are more."""
        return self.params_before - self.params_after

    @property
    def macs_saved(self) -> int:
        """Fewer multiply-adds for one input, those of folded norms included; negative if there are more."""
        return self.macs_before - self.macs_after + self.norm_macs


class WindowConv2d(nn.Conv2d):
    """A fully connected layer that slides over a map: a convolution whose window is the map that it was trained on."""

    def forward(self, input: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return super().forward(input)
        (height, width), (own_height, own_width) = input.shape[2:], self.kernel_size
        if height < own_height or width < own_width:
            raise InputError(
                f"the classifier's window of {own_height}x{own_width} does not fit into a map of {height}x{width}; "
                "enlarge the image to the size that the network was trained on, at least"
            )
        rows, columns = height - own_height + 1, width - own_width + 1
        if len(input) * rows * columns > _FEW_WINDOWS:
            return super().forward(input)
        patches = input.unfold(2, own_height, 1).unfold(3, own_width, 1).permute(0, 2, 3, 1, 4, 5).flatten(3)
        return F.linear(patches, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


def linear_to_conv(model: Network, input_size: InputSize, *, average: bool = True) -> Surgery[Network]:
    """Let a classifier slide over any larger image: its Flatten and linear layers become convolutions.

    Sermanet et al. 2013, arXiv:1312.6229, section 3.5; Long et al. 2014, arXiv:1411.4038, section 3.1.
    input_size: (C, H, W) that the network was trained on, where the outputs are unchanged. An adaptive pooling before
    the Flatten that does nothing there is taken out; one that does something stays, and makes one window of any image.
    average: mean of the logits over all windows, (B, K) as before (VGG's dense evaluation, arXiv:1409.1556, section
    3.2); without it a map of them, (B, K, H', W').
    Works on every nn.Sequential that holds a Flatten and then linear layers; weights keep their names.
    Raises InputError where there is none, or where it holds a layer that cannot slide.
    """
    shapes = _input_shapes(model, input_size)
    result = copy.deepcopy(model)
    changed: list[str] = []
    for name, head in _sequences(result):
        place = next((i for i, m in enumerate(head) if isinstance(m, nn.Flatten) and m.start_dim == 1), None)
        if place is None or not any(isinstance(m, nn.Linear) for m in head[place:]):
            continue
        prefix = f"{name}." if name else ""
        shape = shapes.get(f"{prefix}{place}", ())
        if len(shape) != 3:
            raise InputError(
                f"{prefix}{place} flattens {shape or 'nothing'} at input {input_size}, not a map (C, H, W)"
            )
        changed += _slide(head, place, prefix, shape, shapes)
        if average:
            head.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten()])
    if not changed:
        raise InputError(f"{type(model).__name__} has no nn.Sequential of a Flatten and linear layers to convert")
    if getattr(result, "fixed_size", None):  # a network that refused other sizes because of its head
        result.fixed_size = None  # type: ignore[assignment]
    return _surgery(model, result, changed, input_size)


def conv_to_linear(model: Network, input_size: InputSize) -> Surgery[Network]:
    """The way back: convolutions whose window is the whole map, and all that follow them, become linear layers.

    input_size: (C, H, W), the only size that the result takes. Works on the tail of every nn.Sequential, such as
    `linear_to_conv` leaves it, or LeNet's C5; outputs keep their shape. Raises InputError where there is none.
    """
    shapes = _input_shapes(model, input_size)
    result = copy.deepcopy(model)
    changed: list[str] = []
    for name, tail in _sequences(result):
        prefix = f"{name}." if name else ""
        fitting = (i for i, m in enumerate(tail) if _sees_all(m, shapes.get(f"{prefix}{i}", ())))
        place = next(fitting, None)
        if place is None or not all(_flattens(m) for m in tail[place + 1 :]):
            continue
        changed += _unslide(tail, place, prefix)
    if not changed:
        raise InputError(
            f"{type(model).__name__} has no convolution that sees a whole map at input {input_size}, with nothing but "
            "1x1 convolutions, norms and activations after it"
        )
    return _surgery(model, result, changed, input_size)


def fold_batch_norm(model: Network, input_size: InputSize) -> Surgery[Network]:
    """Put every batch norm into the convolution or linear layer before it: as `model.eval()`, with less work.

    W' = W gamma / sqrt(var + eps), b' = (b - mean) gamma / sqrt(var + eps) + beta, in float64. Pairs are found by
    running the network on (C, H, W) without data: the norm must be all that reads the layer's output, and both must run
    once. A batch norm that is not of that kind, or keeps no statistics, stays. The result is in eval, for use and not
    for training: what has no norm any more trains differently.
    """
    pairs, norm_macs = _norm_pairs(model, input_size)
    result = copy.deepcopy(model).eval()
    for layer_name, norm_name in pairs:
        _fold(result.get_submodule(layer_name), result.get_submodule(norm_name))
        result.set_submodule(norm_name, nn.Identity())
    return _surgery(model, result, [layer for layer, _ in pairs], input_size, norm_macs)


@torch.no_grad()
def decompose_linear(
    layer: nn.Linear, *, rank: int | None = None, energy: float | None = None
) -> Surgery[nn.Sequential]:
    """A linear layer as two thin ones by truncated SVD: W = U S V^T -> V^T first, without bias, then U with the bias.

    Girshick 2015, arXiv:1504.08083, section 3.1 (Fast R-CNN: fc6 to 1024, fc7 to 256). rank: singular values kept, or
    energy: the least number of them whose squares make up that share of all, in (0, 1]. rank (in + out) parameters and
    multiply-adds take the place of in out. The singular values go with the thin layer of the longer side: the product
    is the same, and no division spoils it. Raises InputError unless exactly one is given and can be.
    """
    if (rank is None) == (energy is None):
        raise InputError(f"give either rank or energy, got rank={rank} and energy={energy}")
    weight = layer.weight.to(torch.promote_types(layer.weight.dtype, torch.float32))
    if not weight.isfinite().all():
        raise InputError("the layer's weights are not all finite: it has no singular values")
    wide = layer.in_features >= layer.out_features
    # The singular vectors of the short side, from its Gram matrix: a fraction of the work of a whole SVD. An orthogonal
    # basis from float64 makes W = U (U^T W) exact at full rank, however coarse the Gram matrix.
    gram = weight @ weight.T if wide else weight.T @ weight
    values, vectors = torch.linalg.eigh(gram.double())  # ascending
    shares = values.clamp(min=0).flip(0).cumsum(0)
    shares = shares / shares[-1].clamp(min=torch.finfo(shares.dtype).tiny)
    rank = _rank(rank, energy, shares, layer)
    basis = vectors[:, -rank:].flip(1).to(weight.dtype)
    first, second = (basis.T @ weight, basis) if wide else (basis.T, weight @ basis)
    thin = nn.Sequential(_linear(first, None, layer), _linear(second, layer.bias, layer)).train(layer.training)
    size = layer.in_features + layer.out_features
    return Surgery(
        model=thin,
        changed=("",),
        params_before=count_parameters(layer),
        params_after=count_parameters(thin),
        macs_before=layer.weight.numel(),
        macs_after=rank * size,
        kept_energy=float(shares[rank - 1]),
    )


def _surgery(
    model: nn.Module, result: Network, changed: list[str], input_size: InputSize, norm_macs: int = 0
) -> Surgery[Network]:
    return Surgery(
        model=result,
        changed=tuple(changed),
        params_before=count_parameters(model),
        params_after=count_parameters(result),
        macs_before=count_macs(model, input_size),
        macs_after=count_macs(result, input_size),
        norm_macs=norm_macs,
    )


def _sequences(model: nn.Module) -> list[tuple[str, nn.Sequential]]:
    return [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Sequential)]


def _input_shapes(model: nn.Module, input_size: InputSize) -> dict[str, tuple[int, ...]]:
    """The shape, without the batch, of what each module is given first."""
    shapes: dict[str, tuple[int, ...]] = {}

    def enter(name: str, arguments: Any) -> None:
        if arguments and isinstance(arguments[0], Tensor):
            shapes.setdefault(name, tuple(arguments[0].shape[1:]))

    twin, images = meta_twin(model, input_size)
    for name, module in twin.named_modules():
        module.register_forward_pre_hook(lambda _, arguments, name=name: enter(name, arguments))
    with torch.no_grad():
        twin(images)
    return shapes


def _slide(
    head: nn.Sequential, place: int, prefix: str, shape: tuple[int, ...], shapes: dict[str, tuple[int, ...]]
) -> list[str]:
    """Convert what follows the Flatten at `place`, which sees maps of `shape`. Returns the names of linear layers."""
    adaptive = isinstance(head[place - 1], nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d) if place else False
    if adaptive and shapes[f"{prefix}{place - 1}"] == shape:
        head[place - 1] = nn.Identity()
    head[place] = nn.Identity()
    changed = []
    window = shape[1:]
    for i in range(place + 1, len(head)):
        layer = head[i]
        if type(layer) is nn.Linear:
            if not changed and layer.in_features != shape[0] * window[0] * window[1]:
                raise InputError(f"{prefix}{i} takes {layer.in_features} features, its map has {shape}")
            head[i] = _to_conv(layer, window)
            changed.append(f"{prefix}{i}")
            window = (1, 1)
        elif isinstance(layer, nn.BatchNorm1d):
            head[i] = _renamed(layer, nn.BatchNorm2d)
        elif not isinstance(layer, _ELEMENTWISE):
            raise InputError(f"{prefix}{i} is a {type(layer).__name__}, which cannot slide over a map")
    return changed


def _unslide(tail: nn.Sequential, place: int, prefix: str) -> list[str]:
    """Convert the tail from the convolution at `place` on. Returns the names of convolutions, as they are now."""
    channels = [m.out_channels for m in tail[place:] if isinstance(m, nn.Conv2d)][-1]
    flat = any(isinstance(m, nn.Flatten) for m in tail[place:])
    while isinstance(tail[-1], nn.AdaptiveAvgPool2d | nn.Flatten):
        del tail[-1]
    before = place - 1
    while before > 0 and isinstance(tail[before], nn.Dropout):
        before -= 1
    if before >= 0 and type(tail[before]) is nn.Identity:  # where `linear_to_conv` found the Flatten
        tail[before] = nn.Flatten()
    else:
        tail.insert(place, nn.Flatten())
        place += 1
    changed = []
    for i in range(place, len(tail)):
        layer = tail[i]
        if isinstance(layer, nn.Conv2d):
            tail[i] = _linear(layer.weight.flatten(1), layer.bias, layer).train(layer.training)
            changed.append(f"{prefix}{i}")
        elif isinstance(layer, nn.BatchNorm2d):
            tail[i] = _renamed(layer, nn.BatchNorm1d)
    if not flat:
        tail.append(nn.Unflatten(1, (channels, 1, 1)))
    return changed


def _sees_all(module: nn.Module, shape: tuple[int, ...]) -> bool:
    if not isinstance(module, nn.Conv2d) or type(module) not in (nn.Conv2d, WindowConv2d):
        return False  # other subclasses may pad or drop in their own way
    plain = module.padding in ((0, 0), "valid") and module.dilation == (1, 1) and module.groups == 1
    return plain and tuple(shape[1:]) == module.kernel_size


def _flattens(module: nn.Module) -> bool:
    """Whether a module behind a map of one place has a counterpart for vectors, or is the end of the tail."""
    if isinstance(module, nn.AdaptiveAvgPool2d):
        return bool(module.output_size in (1, (1, 1)))
    return isinstance(module, (*_ELEMENTWISE, nn.BatchNorm2d, nn.Flatten)) or _sees_all(module, (0, 1, 1))


def _to_conv(layer: nn.Linear, window: tuple[int, ...]) -> WindowConv2d:
    channels = layer.in_features // (window[0] * window[1])
    conv = WindowConv2d(channels, layer.out_features, window, bias=layer.bias is not None, device="meta")  # type: ignore[arg-type]
    conv.weight = _parameter(layer.weight.reshape(conv.weight.shape), layer.weight)
    conv.bias = layer.bias
    return conv.train(layer.training)


def _linear(weight: Tensor, bias: Tensor | None, like: nn.Linear | nn.Conv2d) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    linear.weight = _parameter(weight.to(like.weight.dtype), like.weight)
    if bias is not None:
        linear.bias = _parameter(bias, bias)
    return linear


def _parameter(values: Tensor, like: Tensor) -> nn.Parameter:
    return nn.Parameter(values.detach().clone(memory_format=torch.contiguous_format), like.requires_grad)


def _renamed(norm: nn.BatchNorm1d | nn.BatchNorm2d, kind: type[nn.Module]) -> nn.Module:
    """The same batch norm for inputs of another number of dimensions: it holds vectors only."""
    fresh = copy.copy(norm)
    fresh.__class__ = kind  # type: ignore[assignment]
    return fresh


def _rank(rank: int | None, energy: float | None, shares: Tensor, layer: nn.Linear) -> int:
    full = min(layer.in_features, layer.out_features)
    if energy is not None:
        if not 0 < energy <= 1:
            raise InputError(f"energy must be a share above 0 and up to 1, got {energy}")
        return min(int((shares < energy).sum()) + 1, full)
    if isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= full:
        raise InputError(
            f"rank must be from 1 to {full} for {layer.in_features} to {layer.out_features} features, got {rank!r}"
        )
    return rank


class _Readers(TorchDispatchMode):
    """Counts how many operations read each tensor, and keeps all of them, so that none takes another's identity."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[int] = Counter()
        self.kept: list[Any] = []

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.note([args, kwargs])
        result = func(*args, **(kwargs or {}))
        self.kept.append(result)
        return result

    def note(self, tree: Any) -> None:
        self.count.update(id(leaf) for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def _norm_pairs(model: nn.Module, input_size: InputSize) -> tuple[list[tuple[str, str]], int]:
    """Names of (layer, batch norm) that can be one, and the multiply-adds of these norms."""
    twin, images = meta_twin(model, input_size)
    names = {module: name for name, module in twin.named_modules()}
    runs: Counter[nn.Module] = Counter()
    makers: dict[int, nn.Module] = {}  # by the tensor that it made
    candidates: list[tuple[nn.Module, nn.Module, Tensor]] = []

    def made(module: nn.Module, arguments: Any, output: Tensor) -> None:
        runs[module] += 1
        makers[id(output)] = module

    def norming(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        runs[module] += 1
        maker = makers.get(id(arguments[0]))
        if maker is not None and _can_fold(maker, module, arguments[0]):
            candidates.append((maker, module, arguments[0]))

    for module in names:
        if isinstance(module, _FOLDING):
            module.register_forward_hook(made)
        elif _is_batch_norm(module):
            module.register_forward_pre_hook(norming)
    with torch.no_grad(), _Readers() as readers:
        readers.note(twin(images))  # what is returned has a reader outside
    pairs = [
        (layer, norm, x)
        for layer, norm, x in candidates
        if runs[layer] == runs[norm] == 1 and readers.count[id(x)] == 1
    ]
    return [(names[layer], names[norm]) for layer, norm, _ in pairs], sum(x.numel() for *_, x in pairs)


def _is_batch_norm(module: nn.Module) -> bool:
    frozen = type(module).__name__ == "FrozenBatchNorm2d"  # torchvision's, which need not be imported to be known
    return isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm) or frozen


def _can_fold(layer: nn.Module, norm: nn.Module, x: Tensor) -> bool:
    """Whether both speak of the same channels, and the norm's statistics are fixed."""
    if is_parametrized(layer) or getattr(norm, "running_mean", None) is None:
        return False
    if isinstance(layer, nn.Linear):  # behind (B, L, F) a batch norm would be over L
        return x.ndim == 2
    return not isinstance(layer, _TRANSPOSED) or layer.groups == 1


@torch.no_grad()
def _fold(layer: Any, norm: Any) -> None:
    """Write the norm into the layer's weight and bias."""
    weight, mean, var = layer.weight, norm.running_mean, norm.running_var
    scale = torch.ones_like(mean) if norm.weight is None else norm.weight
    shift = torch.zeros_like(mean) if norm.bias is None else norm.bias
    bias = torch.zeros_like(mean) if layer.bias is None else layer.bias
    tensors = (weight.double(), bias.double(), mean.double(), var.double(), norm.eps, scale.double(), shift.double())
    if isinstance(layer, nn.Linear):
        folded = fuse_linear_bn_weights(*tensors)
    else:
        folded = fuse_conv_bn_weights(*tensors, transpose=isinstance(layer, _TRANSPOSED))
    layer.weight, layer.bias = (nn.Parameter(t.to(weight.dtype), weight.requires_grad) for t in folded)
