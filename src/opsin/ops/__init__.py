"""Pure tensor functions: boxes and anchors, suppression, convolution by several algorithms, decoding of sequences."""

from typing import TYPE_CHECKING

from opsin.lazy_modules import lazy_modules
from opsin.ops.anchors import AnchorClusters, cell_anchors, grid_anchors, kmeans_anchors
from opsin.ops.boxes import box_area, clip_boxes, convert_boxes, decode_boxes, encode_boxes
from opsin.ops.convolution import ConvolutionCost, conv2d, convolution_cost
from opsin.ops.decoding import Decoded, ctc_greedy, ctc_prefix_beam
from opsin.ops.iou import iou, pairwise_iou, shape_iou
from opsin.ops.language import CharacterModel, Lexicon
from opsin.ops.sequence import edit_distance, edit_distances

if TYPE_CHECKING:
    from opsin.ops.non_maximum_suppression import batched_nms, diou_nms, nms, soft_nms

# They need torchvision, whose import takes over a second.
_LATE: dict[str, str] = dict.fromkeys(("batched_nms", "diou_nms", "nms", "soft_nms"), "non_maximum_suppression")
__getattr__, __dir__ = lazy_modules(__name__, __file__, _LATE)

__all__ = [
    "AnchorClusters",
    "CharacterModel",
    "ConvolutionCost",
    "Decoded",
    "Lexicon",
    "batched_nms",
    "box_area",
    "cell_anchors",
    "clip_boxes",
    "conv2d",
    "convert_boxes",
    "convolution_cost",
    "ctc_greedy",
    "ctc_prefix_beam",
    "decode_boxes",
    "diou_nms",
    "edit_distance",
    "edit_distances",
    "encode_boxes",
    "grid_anchors",
    "iou",
    "kmeans_anchors",
    "nms",
    "pairwise_iou",
    "shape_iou",
    "soft_nms",
]
