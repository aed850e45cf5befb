"""Detection: networks that say what is where, their training and their judgement."""

from opsin.detect import (  # registers their models
    efficientdet,
    m2det,
    retinanet,
    rfbnet,
    ssd,
    yolov1,
    yolov2,
    yolov3,
    yolov3_asff,
    yolov4,
)

__all__ = ["efficientdet", "m2det", "retinanet", "rfbnet", "ssd", "yolov1", "yolov2", "yolov3", "yolov3_asff", "yolov4"]
