"""Data: formats, splits, preprocessing, augmentation, loading, and the data check."""

from typing import TYPE_CHECKING

from opsin.data.class_names import class_names, translate
from opsin.data.contact_sheet import contact_sheet, export
from opsin.data.dataset_check import Diagnosis, inspect, render
from opsin.data.drawing import to_pil as to_pillow
from opsin.data.images import UnreadableImage, read_image
from opsin.data.inputs import Inputs
from opsin.data.labels import class_counts
from opsin.data.open_source import open_source as open
from opsin.data.open_source import recognize_task
from opsin.data.preprocessing import Preprocessing
from opsin.data.source import Source, Split, check_trainable, find_channels, verify
from opsin.data.splits import divide, stratified, stratify
from opsin.data.torch_dataset import source_of
from opsin.data.truth import Problem, Summary, Truth
from opsin.image_files import IMAGE_SUFFIXES
from opsin.lazy_modules import lazy_modules

if TYPE_CHECKING:
    from opsin.data.loading import ImageLoader, create_loader
    from opsin.data.transforms.augmentation import Augmentation, create_augmentation, describe_augmentation
    from opsin.data.transforms.batch_mixing import create_mixing

# What only training and evaluation need: it imports torchvision, which takes over a second.
_LATE = {
    "ImageLoader": "loading",
    "create_loader": "loading",
    "Augmentation": "transforms.augmentation",
    "create_augmentation": "transforms.augmentation",
    "describe_augmentation": "transforms.augmentation",
    "create_mixing": "transforms.batch_mixing",
}
__getattr__, __dir__ = lazy_modules(__name__, __file__, _LATE)

__all__ = [
    "IMAGE_SUFFIXES",
    "Augmentation",
    "Diagnosis",
    "ImageLoader",
    "Inputs",
    "Preprocessing",
    "Problem",
    "Source",
    "Split",
    "Summary",
    "Truth",
    "UnreadableImage",
    "check_trainable",
    "class_counts",
    "class_names",
    "contact_sheet",
    "create_augmentation",
    "create_loader",
    "create_mixing",
    "describe_augmentation",
    "divide",
    "export",
    "find_channels",
    "inspect",
    "open",
    "read_image",
    "recognize_task",
    "render",
    "source_of",
    "stratified",
    "stratify",
    "to_pillow",
    "translate",
    "verify",
]
