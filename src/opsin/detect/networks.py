"""Every detector: importing this registers them by name."""

from opsin.detect import (  # registers their models
    ctpn,
    efficientdet,
    fast_rcnn,
    faster_rcnn,
    m2det,
    rcnn,
    retinanet,
    rfbnet,
    rpn,
    spp_net,
    ssd,
    yolov1,
    yolov2,
    yolov3,
    yolov3_asff,
    yolov4,
)

__all__ = [
    "ctpn",
    "efficientdet",
    "fast_rcnn",
    "faster_rcnn",
    "m2det",
    "rcnn",
    "retinanet",
    "rfbnet",
    "rpn",
    "spp_net",
    "ssd",
    "yolov1",
    "yolov2",
    "yolov3",
    "yolov3_asff",
    "yolov4",
]
