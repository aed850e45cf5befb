"""Names of the classes of public data sets, for weights that were trained on them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from opsin.errors import InputError, unknown


@cache
def class_names(dataset: str, num_classes: int) -> tuple[str, ...]:
    """The classes of a data set, in the order of labels; their numbers where nobody named them (dataset "").

    "imagenet1k": English words, as torchvision has them. "coco": the 80 of COCO, or torchvision's 91, from
    "__background__" on with "N/A" for the numbers that COCO left out, or these 90 without the first. "voc": the 20 of
    Pascal VOC behind "__background__". Raises InputError for another number of them.
    """
    if not dataset:
        return tuple(map(str, range(num_classes)))
    if dataset == "imagenet1k":
        from torchvision.models import AlexNet_Weights

        return tuple(AlexNet_Weights.IMAGENET1K_V1.meta["categories"])
    if dataset == "coco":
        return _coco_names(num_classes)
    if dataset == "voc":
        return _voc_names(num_classes)
    raise unknown("data set with class names", dataset, ["imagenet1k", "coco", "voc"])


def _voc_names(num_classes: int) -> tuple[str, ...]:
    from torchvision.models.segmentation import DeepLabV3_ResNet50_Weights

    names = tuple(DeepLabV3_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1.meta["categories"])
    if num_classes != len(names):
        raise InputError(f"VOC's classes are counted as {len(names)}, the background among them, got {num_classes}")
    return names


def _coco_names(num_classes: int) -> tuple[str, ...]:
    from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights

    listed = tuple(RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta["categories"])
    lists = {len(names): names for names in (listed, listed[1:], tuple(n for n in listed[1:] if n != "N/A"))}
    if num_classes not in lists:
        raise InputError(f"COCO's classes are counted as {', '.join(map(str, sorted(lists)))}, got {num_classes}")
    return lists[num_classes]


def translate(folders: Sequence[str], classes: Sequence[str]) -> list[str]:
    """ImageNet's folder names (n01440764) as the class names that they stand for, if a model has those; else as given.

    ImageNet and its subsets name folders by WordNet's numbers. Sorted, these are in the order of the labels.
    """
    numbers = _wordnet_numbers()
    if list(classes) != list(class_names("imagenet1k", 1000)) or not set(folders) <= numbers.keys():
        return list(folders)
    return [classes[numbers[folder]] for folder in folders]


@cache
def _wordnet_numbers() -> dict[str, int]:
    text = Path(__file__).with_name("imagenet1k.txt").read_text(encoding="ascii")
    return {number: label for label, number in enumerate(text.split())}
