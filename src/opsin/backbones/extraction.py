"""Maps from the middle of any classification network, for heads that look at several scales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from opsin import registry
from opsin.backbones.backbone import Backbone
from opsin.errors import InputError


class Extractor(nn.Module):
    """A backbone without its head that gives the maps of chosen strides, the finest first.

    (B, C, H, W) -> [(B, channels[i], about H / strides[i], about W / strides[i])]. Of several stages with one stride it
    takes the last. Raises InputError where the backbone has no stage of a stride.
    """

    name: str | None = None  # of the registered network, where it was made by name

    def __init__(self, backbone: Backbone, strides: Sequence[int] = (8, 16, 32)) -> None:
        super().__init__()
        backbone.drop_aux_heads()
        places = {stride: place for place, stride in enumerate(backbone.strides)}
        missing = [stride for stride in strides if stride not in places]
        if missing:
            raise InputError(
                f"{backbone.label} has no stage of stride {missing[0]}, only {', '.join(map(str, places))}; "
                "choose other strides or another backbone"
            )
        self.places = tuple(places[stride] for stride in strides)
        self.strides = tuple(strides)
        self.channels = tuple(backbone.channels[place] for place in self.places)
        backbone.keep_stages(max(self.places) + 1)
        self.backbone = backbone

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = self.backbone.features(images)
        return [maps[place] for place in self.places]

    def initialize_from(self, state: Mapping[str, Tensor]) -> list[str]:
        """Copy what fits of a classification network's tensors. Returns the names of ours that were not filled."""
        return [f"backbone.{name}" for name in self.backbone.initialize_from(state)]


def create_extractor(
    name: str,
    strides: Sequence[int] = (8, 16, 32),
    *,
    in_channels: int = 3,
    weights: str | None = None,
    **options: Any,
) -> Extractor:
    """The maps of a registered classification network, by its name and options.

    weights: published ones by name, such as "imagenet1k". Raises InputError for a model that is no backbone.
    """
    if weights is not None:
        options["weights"] = weights
    model = registry.create_model(name, in_channels=in_channels, **options)
    if not isinstance(model, Backbone):
        raise InputError(f"{name} is no classification network; `opsin models --task classify` lists those")
    extractor = Extractor(model, strides)
    extractor.name = name
    return extractor


def find_backbone(model: nn.Module) -> str | None:
    """The registered name of the classification network inside a model: its `backbone_name`, or its extractor's."""
    named = getattr(model, "backbone_name", None)
    return named or next((m.name for m in model.modules() if isinstance(m, Extractor) and m.name), None)
