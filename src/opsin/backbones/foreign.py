"""Networks of other libraries as backbones: what timm's and torchvision's have in common."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from opsin.backbones.backbone import Backbone
from opsin.errors import InputError
from opsin.nn.capabilities import ClassRows
from opsin.nn.counting import meta_twin

GROWTH = 448  # pixels, a multiple of the strides 2 to 64 and of patches of 14 and 28
_STEP = 32  # pixels by which an image may be larger, where a network is not for one size


@dataclass(frozen=True)
class Access:
    """How one looks into a network of a library.

    maps: (network, images, count) -> the first so many maps, (B, C, h, w), the finest first; all with None. prune:
    (network, count) takes out what is behind them. classifiers: (network, num_classes) -> the layers that make logits.
    reset: (network, num_classes) makes these anew. stated: (network) -> (channels, stride) of each map as the library
    says, for one that cannot be measured.
    """

    maps: Callable[[Any, Tensor, int | None], list[Tensor]]
    prune: Callable[[Any, int], None]
    classifiers: Callable[[Any, int], Sequence[nn.Module]]
    reset: Callable[[Any, int], None]
    stated: Callable[[Any], Sequence[tuple[int, int]]] | None = None


class WholeNetwork(Backbone):
    """A network of another library that runs as it is, and gives maps from its inside.

    It has no `stem`, `stages` and `head` of its own: `network` is all of it. Channels and strides of its maps are
    measured, once for each name with its options. size: (height, width) of an image that it takes. fixed: whether the
    library says that it takes no other; one that does is found out.
    """

    def __init__(
        self,
        title: str,
        network: nn.Module,
        access: Access,
        size: tuple[int, int],
        options: Mapping[str, Any],
        *,
        num_classes: int,
        in_channels: int,
        fixed: bool = False,
        output_stride: int | None = None,
    ) -> None:
        super().__init__(num_classes, in_channels)
        if output_stride is not None:
            raise InputError(f"{title} takes no output_stride; leave it out, or take a network of `opsin models`")
        self.title, self.network, self.access = title, network, access
        self.count: int | None = None  # of maps, where the last ones were left out
        key = (title, in_channels, repr(sorted(options.items())))
        if key not in _measured:
            _measured[key] = _measure(self, size, fixed)
        self.channels, self.strides, one_size = _measured[key]
        if one_size and size[0] != size[1]:
            raise InputError(
                f"{title} takes images of {size[0]}x{size[1]} only, and opsin none of one size but squares"
            )
        self.fixed_size = size[0] if one_size else None

    @property
    def label(self) -> str:
        return self.title

    def features(self, images: Tensor) -> list[Tensor]:
        self._check(images)
        return _asked(self, lambda: self.access.maps(self.network, images, self.count))

    def forward(self, images: Tensor) -> Tensor:
        self._check(images)
        return _asked(self, lambda: self.network(images))

    def keep_stages(self, count: int) -> None:
        self.access.prune(self.network, count)
        self.count, self.channels, self.strides = count, self.channels[:count], self.strides[:count]

    def layers(self) -> list[nn.Module]:
        raise InputError(f"{self.title} runs as a whole and cannot be divided here; take a network of `opsin models`")

    def class_rows(self) -> dict[str, ClassRows]:
        heads = set(self.access.classifiers(self.network, self.num_classes))
        rows = [f"{n}.{key}" for n, m in self.named_modules() if m in heads for key, _ in m.named_parameters()]
        return {name: ClassRows() for name in rows if len(self.get_parameter(name)) == self.num_classes}

    def learned_parts(self) -> list[nn.Module]:
        return _without(self.network, set(self.access.classifiers(self.network, self.num_classes)))

    def _replace_output(self) -> None:
        like = next(self.network.parameters())
        self.access.reset(self.network, self.num_classes)
        self.network.to(like)


def _asked(network: WholeNetwork, run: Callable[[], Any]) -> Any:
    """What a network gives; where it refuses a size, which libraries do by an assertion, an InputError."""
    try:
        return run()
    except AssertionError as error:
        raise InputError(f"{network.title} cannot take these images: {error}") from error


def _without(module: nn.Module, left_out: set[nn.Module]) -> list[nn.Module]:
    """The parts of a module, as large as they can be, that hold none of some modules."""
    if module in left_out:
        return []
    if left_out.isdisjoint(module.modules()):
        return [module]
    own = [*module.parameters(recurse=False)]
    parts = [part for child in module.children() for part in _without(child, left_out)]
    return [*([nn.ParameterList(own)] if own else []), *parts]


Measured: TypeAlias = tuple[tuple[int, ...], tuple[int, ...], bool]
_measured: dict[tuple[str, int, str], Measured] = {}  # by title, channels and options of a network


def _measure(network: WholeNetwork, size: tuple[int, int], fixed: bool) -> Measured:
    """Channels and strides of the maps, and whether it takes images of one size only.

    A stride is by how much an image must grow for the map to grow by one. Where a network takes one size only, it is
    the power of two that gives the map's side, rounded up, or else the image's side over the map's.
    """
    try:
        first = _sides(network, size)
    except Exception:  # what the meta device cannot run
        if network.access.stated is None:
            raise
        stated = network.access.stated(network.network)
        return tuple(c for c, _ in stated), tuple(s for _, s in stated), fixed
    channels = tuple(width for width, _ in first)
    one_size = fixed and _grown(network, size, _STEP) is None
    grown = None if one_size else _grown(network, size, GROWTH)
    if grown is not None and all(after > before for (_, before), (_, after) in zip(first, grown, strict=True)):
        by = [after - before for (_, before), (_, after) in zip(first, grown, strict=True)]
        return channels, tuple(round(GROWTH / rows) for rows in by), one_size
    powers = [2**k for k in range(8)]
    strides = [next((p for p in powers if -(-size[0] // p) == rows), round(size[0] / rows)) for _, rows in first]
    return channels, tuple(strides), one_size


def _grown(network: WholeNetwork, size: tuple[int, int], by: int) -> list[tuple[int, int]] | None:
    """`_sides` for images that are larger by some pixels; None where the network does not take them."""
    try:
        return _sides(network, (size[0] + by, size[1] + by))
    except Exception:  # of the library, in its own words
        return None


def _sides(network: WholeNetwork, size: tuple[int, int]) -> list[tuple[int, int]]:
    """(channels, height) of each map for images of a size, found on the meta device."""
    twin, images = meta_twin(network.network, (network.in_channels, *size))
    with torch.no_grad():
        return [(x.shape[1], x.shape[2]) for x in network.access.maps(twin, images, None)]


class Builder:
    """Builds a network of another library by keywords; what these are is found out when it is asked.

    build: num_classes, in_channels, output_stride and the library's own options -> the network. options: names and
    defaults of the latter. family: of the file that holds the network there.
    """

    def __init__(
        self,
        title: str,
        family: str,
        num_classes: int,
        build: Callable[..., Backbone],
        options: Callable[[], Mapping[str, Any]],
    ) -> None:
        self.__module__ = family  # type: ignore[misc]  # of the object, as a function has it
        self.__name__ = title
        self.num_classes, self._build, self._options = num_classes, build, options

    @property
    def __signature__(self) -> inspect.Signature:
        known = {"num_classes": self.num_classes, "in_channels": 3, "output_stride": None, **self._options()}
        kind = inspect.Parameter.KEYWORD_ONLY
        return inspect.Signature([inspect.Parameter(name, kind, default=value) for name, value in known.items()])

    def __call__(self, *, num_classes: int | None = None, in_channels: int = 3, **options: Any) -> Backbone:
        """Raises InputError for what the library cannot build."""
        chosen = self.num_classes if num_classes is None else num_classes
        return self._build(num_classes=chosen, in_channels=in_channels, **options)


def options_of(kind: type, hidden: Iterable[str]) -> dict[str, Any]:
    """What a network's constructor leaves to choose, name -> default: the rest its name has decided."""
    parameters = inspect.signature(kind.__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty and p.name not in set(hidden)}


def create(title: str, options: Mapping[str, Any], build: Callable[[], nn.Module]) -> nn.Module:
    """What a library builds; on the meta device by way of memory where it cannot without, as some of timm 1.0's."""
    try:
        if torch.get_default_device().type != "meta":
            return build()
        try:
            return build()
        except (NotImplementedError, RuntimeError):
            with torch.device("cpu"):
                return build().to("meta")
    except InputError:
        raise
    except Exception as error:  # of the library, in its own words
        shown = ", ".join(f"{name}={value!r}" for name, value in options.items())
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{title} cannot be built with {shown or 'its defaults'}: {reason}") from error
