"""The classification network inside a segmenter, with the maps of its stem too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from opsin import registry
from opsin.backbones.backbone import Backbone
from opsin.backbones.extraction import Extractor
from opsin.errors import InputError
from opsin.nn.counting import meta_twin
from opsin.nn.norm import freeze_batch_norm


class Encoder(Extractor):
    """A backbone without its head that gives every map of another stride, the finest first.

    Of several maps with one stride it has the last. That of a stride finer than the first stage's is taken from the
    stem, where this is a chain of layers. `keep` leaves only some of them; `places` are stages, those of the stem below
    zero. (B, C, H, W) -> [(B, channels[i], about H / strides[i], about W / strides[i])]. exact: of an input of whole
    cells of the coarsest map, every map is exactly that large; not so where convolutions without padding lose a border.
    """

    def __init__(self, backbone: Backbone) -> None:
        nn.Module.__init__(self)
        if backbone.fixed_size is not None:
            raise InputError(
                f"{backbone.label} takes images of {backbone.fixed_size}x{backbone.fixed_size} only, and a segmenter "
                "images of any size; take another backbone"
            )
        backbone.drop_aux_heads()
        backbone.keep_stages(len(backbone.strides))
        self.backbone = backbone
        found = {stride: (place, backbone.channels[place]) for place, stride in enumerate(backbone.strides)}
        found = _stem_maps(backbone, min(found)) | found
        self._set({stride: found[stride] for stride in sorted(found)})
        self.exact = self._is_exact()

    def _is_exact(self) -> bool:
        side = max(self.strides) * (2 + self.backbone.min_size // max(self.strides))
        twin, images = meta_twin(self, (self.backbone.in_channels, side, side))
        with torch.no_grad():
            maps = twin(images)
        return all(x.shape[2] * stride == side for x, stride in zip(maps, self.strides, strict=True))

    def _set(self, found: Mapping[int, tuple[int, int]]) -> None:
        self.strides = tuple(found)
        self.places = tuple(place for place, _ in found.values())
        self.channels = tuple(channels for _, channels in found.values())

    @property
    def min_size(self) -> int:
        """The least side of an image that is padded to whole cells of the coarsest map."""
        own = self.backbone.min_size
        return own if own > max(self.strides) else 1

    def keep(self, strides: Sequence[int]) -> None:
        """Give the maps of these strides only, finest first. Raises InputError where one is missing."""
        known = dict(zip(self.strides, zip(self.places, self.channels, strict=True), strict=True))
        for stride in strides:
            if stride not in known:
                raise InputError(
                    f"{self.backbone.label} has no map of stride {stride}, only {', '.join(map(str, known))}; take "
                    "another backbone"
                )
        self._set({stride: known[stride] for stride in strides})

    def channels_of(self, stage: int) -> int:
        """Of a stage's map, by its place among all stages."""
        return self.backbone.channels[stage]

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = self.run(images)
        return [maps[place] for place in self.places]

    def run(self, images: Tensor) -> dict[int, Tensor]:
        """The map of every stage by its place, and those of the stem that are given."""
        inside = [place for place in self.places if place < 0]
        if not inside:
            return dict(enumerate(self.backbone.features(images)))
        self.backbone._check(images)
        stem = list(self.backbone.stem.children())
        maps, x = {}, images
        for place, layer in enumerate(stem):
            x = layer(x)
            if place - len(stem) in inside:
                maps[place - len(stem)] = x
        for place, stage in enumerate(self.backbone.stages):
            maps[place] = x = stage(x)
        return maps


def _stem_maps(backbone: Backbone, first: int) -> dict[int, tuple[int, int]]:
    """Of each stride finer than `first`, above 1, the last layer of the stem that gives its map, and its channels."""
    if not isinstance(backbone.stem, nn.Sequential) or type(backbone).features is not Backbone.features:
        return {}
    sides = [size * max(backbone.strides) for size in (4, 8)]
    sides = [side + backbone.min_size // sides[0] * sides[0] for side in sides]
    shapes = []
    for side in sides:
        twin, x = meta_twin(backbone.stem, (backbone.in_channels, side, side))
        rows = []
        with torch.no_grad():
            for layer in twin.children():
                x = layer(x)
                rows.append(x.shape)
        shapes.append(rows)
    found = {}
    for place, (small, large) in enumerate(zip(*shapes, strict=True)):
        if len(small) == 4 and large[2] > small[2]:
            stride, rest = divmod(sides[1] - sides[0], large[2] - small[2])
            if not rest and 1 < stride < first:
                found[stride] = place - len(shapes[0]), small[1]
    return found


def create_encoder(
    name: str,
    *,
    in_channels: int = 3,
    weights: str | None = None,
    output_stride: int | None = None,
    frozen_norm: bool = False,
    prepare: Callable[[Backbone], None] | None = None,
    **options: Any,
) -> Encoder:
    """The maps of a registered classification network, by its name and options.

    weights: published ones by name, such as "imagenet1k". output_stride: the largest stride of a map, 8, 16 or 32; None
    leaves it as it is. frozen_norm: its batch norms keep their statistics and are not trained, for small batches.
    prepare: what is to be done to the network before it is held at its stride.
    Raises InputError for a model that is no backbone.
    """
    if weights is not None:
        options["weights"] = weights
    if output_stride is not None and prepare is None:
        options["output_stride"] = output_stride
    model = registry.create_model(name, in_channels=in_channels, **options)
    if not isinstance(model, Backbone):
        raise InputError(f"{name} is no classification network; `opsin models --task classify` lists those")
    if prepare is not None:
        prepare(model)
        if output_stride is not None:
            model._hold_stride(output_stride)
    encoder = Encoder(model)
    encoder.name = name
    if frozen_norm:
        freeze_batch_norm(encoder)
    return encoder
