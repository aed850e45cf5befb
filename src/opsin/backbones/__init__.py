"""Classification networks, one family a file. Importing this package registers them all."""

from opsin.backbones import alexnet, lenet, resnet, vgg
from opsin.backbones.backbone import Backbone
from opsin.backbones.weights import copy_in_order

__all__ = ["Backbone", "alexnet", "copy_in_order", "lenet", "resnet", "vgg"]
