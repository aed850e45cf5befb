"""Where each family of networks stands: what its idea works on, after the survey's classes.

Khan, Sohail, Zahoora and Qureshi 2020, arXiv:1901.06032, section 4: spatial exploitation, depth, multi-path, width,
feature-map exploitation, attention. What came later or aims elsewhere has classes of its own: lightweight, search.
"""

from __future__ import annotations

from collections.abc import Mapping

_SPATIAL = "spatial exploitation: which kernels look at which region"
_DEPTH = "depth: more layers, and what makes them trainable"
_PATHS = "multi-path: shortcuts around layers"
_WIDTH = "width: more maps or branches side by side"
_FEATURES = "feature-map exploitation: weighing channels"
_ATTENTION = "attention: weighing places as well as channels"
_LIGHT = "lightweight: the same for fewer multiply-adds"
_SEARCH = "design by search or scaling rules"
_FLOW = "gradient flow: which gradients are learned from twice"

# By the file that holds the family; the foremost first.
PLACES: Mapping[str, tuple[str, ...]] = {
    "lenet": (_SPATIAL,),
    "alexnet": (_SPATIAL, _DEPTH),
    "zfnet": (_SPATIAL,),
    "spp_net": (_SPATIAL,),
    "nin": (_SPATIAL, _DEPTH),
    "vgg": (_SPATIAL, _DEPTH),
    "googlenet": (_SPATIAL, _WIDTH),
    "bn_inception": (_WIDTH, _DEPTH),
    "inception_v3": (_WIDTH, _DEPTH),
    "inception_v4": (_WIDTH, _DEPTH),
    "inception_resnet": (_WIDTH, _PATHS),
    "highway": (_DEPTH, _PATHS),
    "resnet": (_DEPTH, _PATHS),
    "preact_resnet": (_DEPTH, _PATHS),
    "resnext": (_WIDTH, _PATHS),
    "wide_resnet": (_WIDTH, _PATHS),
    "pyramidnet": (_WIDTH, _PATHS),
    "xception": (_WIDTH, _LIGHT),
    "densenet": (_PATHS, _WIDTH),
    "senet": (_FEATURES,),
    "cbam_resnet": (_ATTENTION, _FEATURES),
    "mobilenet_v1": (_LIGHT,),
    "mobilenet_v2": (_LIGHT, _PATHS),
    "mobilenet_v3": (_LIGHT, _FEATURES, _SEARCH),
    "shufflenet_v1": (_LIGHT, _WIDTH),
    "shufflenet_v2": (_LIGHT,),
    "cspnet": (_FLOW, _LIGHT),
    "darknet": (_DEPTH, _LIGHT),
    "regnet": (_SEARCH, _WIDTH),
    "efficientnet": (_SEARCH, _LIGHT, _FEATURES),
}


def place(family: str) -> tuple[str, ...]:
    """The classes of a family, () for one that the table does not have."""
    return PLACES.get(family, ())
