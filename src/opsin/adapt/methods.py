"""The methods of adaptation by their names."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from opsin.adapt.adda import ADDA
from opsin.adapt.adversarial import DANN
from opsin.adapt.classifier_discrepancy import MCD
from opsin.adapt.conditional import CDAN, CDANE
from opsin.adapt.coral import DeepCORAL
from opsin.adapt.fine_tuning import L2SP, GradualUnfreezing, LastBlock, LinearProbe
from opsin.adapt.invariant_risk import ERM, IRM, DomainCORAL, GroupDRO, VREx
from opsin.adapt.kernel_mean_matching import KernelMeanMatching
from opsin.adapt.mean_discrepancy import DAN
from opsin.adapt.method import Method, SourceOnly
from opsin.adapt.mixstyle import MixStyle
from opsin.adapt.self_training import SelfTraining
from opsin.adapt.tradaboost import TrAdaBoost
from opsin.adapt.weighting import DensityRatio
from opsin.errors import InputError, unknown

METHODS: Mapping[str, type[Method]] = {
    "source_only": SourceOnly,
    "dan": DAN,
    "deep_coral": DeepCORAL,
    "dann": DANN,
    "cdan": CDAN,
    "cdan_e": CDANE,
    "adda": ADDA,
    "mcd": MCD,
    "self_training": SelfTraining,
    "kernel_mean_matching": KernelMeanMatching,
    "density_ratio": DensityRatio,
    "tradaboost": TrAdaBoost,
    "linear_probe": LinearProbe,
    "last_block": LastBlock,
    "gradual_unfreezing": GradualUnfreezing,
    "l2_sp": L2SP,
    "erm": ERM,
    "irm": IRM,
    "vrex": VREx,
    "group_dro": GroupDRO,
    "domain_coral": DomainCORAL,
    "mixstyle": MixStyle,
}


def find_method(name: str) -> type[Method]:
    """A method by its name. Raises InputError with the nearest for another."""
    if name not in METHODS:
        raise unknown("method of adaptation", name, METHODS)
    return METHODS[name]


def create_method(name: str, features: int, num_classes: int, num_sources: int, **options: Any) -> Method:
    """A method for a network. Raises InputError for an option that it does not have."""
    kind = find_method(name)
    known = options_of(kind)
    for option in options:
        if option not in known:
            raise unknown(f"option of {name}", option, known) if known else InputError(f"{name} has no options")
    return kind(features, num_classes, num_sources, **options)


def options_of(kind: type[Method]) -> dict[str, Any]:
    """The options of a method with their defaults."""
    parameters = inspect.signature(kind.__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def describe(name: str) -> str:
    """What a method is, in a line."""
    return (inspect.getdoc(find_method(name)) or "").partition("\n")[0].rstrip(".")
