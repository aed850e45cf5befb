"""The mask branch of Mask R-CNN. He, Gkioxari, Dollar and Girshick 2017, arXiv:1703.06870.

The idea: say of every pixel of a region whether it is the object's, for each class by itself, and leave it to the class
branch which of them counts. `MaskHead` is the branch; `cut_masks` makes its targets of the truth's masks, `paste_masks`
puts what it says back into the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from opsin.detect.regions import ConvStack
from opsin.errors import InputError
from opsin.nn.conv import Norm
from opsin.structures import Instances


class MaskHead(nn.Module):
    """Mask R-CNN's branch: four 3x3s, one that doubles the size, one that predicts. He et al. 2017, figure 4, right.

    [(R, C, S, S)] -> (R, K + 1, 2 S, 2 S) logits, background first as in the published networks, which nothing reads.
    """

    def __init__(self, channels: int, num_classes: int, norm: Norm = None, views: int = 1) -> None:
        super().__init__()
        self.convs = ConvStack(channels, 4, norm, views)
        self.up = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.predict = nn.Conv2d(channels, num_classes + 1, 1)
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, views: Sequence[Tensor]) -> Tensor:
        return self.predict(F.relu(self.up(self.convs(views))))


def paste_masks(masks: Tensor, boxes: Tensor, size: Sequence[int]) -> Tensor:
    """Masks (N, M, M) in [0, 1], each across its box (N, 4), as those of an image: (N, height, width) bool, above 0.5.

    Interpolated at the middle of every pixel, with nothing beyond the mask's border. Mask R-CNN, section 3.1.
    """
    height, width = size
    pasted = torch.zeros(len(masks), height, width, dtype=torch.bool, device=masks.device)
    # Box by box, and only the pixels it covers: a hundred masks of a whole image as floats would take a gigabyte.
    corners = torch.cat([boxes[:, :2].floor(), boxes[:, 2:].ceil()], dim=1).long()
    limits = torch.tensor([width, height, width, height], device=boxes.device)
    for place, (x1, y1, x2, y2) in enumerate(corners.clamp(min=0).minimum(limits).tolist()):
        if x1 >= x2 or y1 >= y2:
            continue
        left, top, right, bottom = boxes[place]
        x = 2 * (torch.arange(x1, x2, device=boxes.device) + 0.5 - left) / (right - left) - 1
        y = 2 * (torch.arange(y1, y2, device=boxes.device) + 0.5 - top) / (bottom - top) - 1
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
        sampled = F.grid_sample(masks[place, None, None], grid[None].to(masks), align_corners=False)
        pasted[place, y1:y2, x1:x2] = sampled[0, 0] > 0.5
    return pasted


def cut_masks(targets: Sequence[Instances], sources: Tensor, boxes: Tensor, size: int) -> Tensor:
    """The truth's masks within boxes (R, 4), at size x size: (R, size, size) in [0, 1]. sources: (R,), whose."""
    lacking = [place for place, one in enumerate(targets) if one.masks is None and len(one)]
    if lacking:
        raise InputError(
            f"the truth of image {lacking[0]} has no masks, which the mask branch learns from; use data that has them, "
            "or mask=False"
        )
    if not len(sources):
        return boxes.new_zeros(0, size, size)
    used, places = sources.unique(return_inverse=True)
    masks = torch.cat([one.masks for one in targets if one.masks is not None and len(one)])
    rois = torch.cat([places[:, None].to(boxes), boxes], dim=1)
    return roi_align(masks[used.to(masks.device), None].to(boxes), rois, size)[:, 0]
