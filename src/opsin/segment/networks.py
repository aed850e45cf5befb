"""Every segmenter: importing this registers them by name."""

from opsin.segment import deeplab, fcn, feature_pyramid_head, unet  # registers their models

__all__ = ["deeplab", "fcn", "feature_pyramid_head", "unet"]
