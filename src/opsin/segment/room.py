"""What segmentation brings, declared."""

from __future__ import annotations

from opsin.rooms import Metric, Option, Room, share

_SHARES = ("miou_*", "dice", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou", "border_f1")

# How an image is looked at, in use and in an evaluation.
_VIEWS = (
    Option("flip", bool, "Look at each image mirrored left to right too, and take the mean."),
    Option(
        "scale",
        float,
        "Look at each image enlarged by this factor, and take the mean over all given, 1 among them where it "
        "is. Repeatable.",
        minimum=0.1,
        maximum=8.0,
        repeatable=True,
    ),
    Option("output_stride", int, "Hold a DeepLab at this stride, 8, 16 or 32, instead of its training's."),
)

ROOM = Room(
    task="segment",
    help="the class of every pixel of an image",
    hub_tag="image-segmentation",
    networks="opsin.segment.networks",
    formats=(
        "opsin.data.formats.digit_scenes:MAPS",
        "opsin.data.formats.mask_folders:FORMAT",
        "opsin.data.formats.voc_masks:FORMAT",
        "opsin.data.formats.cityscapes:FORMAT",
        "opsin.data.formats.outline_maps:COCO",
        "opsin.data.formats.outline_maps:LABELME",
    ),
    reads="opsin.data.dataset_maps:READER",
    trains="opsin.segment.task:SegmentTask",
    predicts="opsin.segment.predict:SegmentPredictor",
    evaluates="opsin.segment.evaluate:SegmentEvaluator",
    scores="opsin.segment.score:score",
    section="opsin.segment.recipe:SegmentSection",
    defaults={
        "optim": {"name": "adamw", "lr": 0.001, "weight_decay": 0.0001},
        "schedule": {"name": "poly", "warmup_epochs": 1.0},
        "train": {"epochs": 50, "batch_size": 8, "clip_norm": 10.0},
    },
    starts="opsin.segment.starting:choose",
    metrics=(
        share("miou", brief=True),
        *(share(name) for name in _SHARES),
        Metric("hausdorff_95", "lower", "px", digits=2),
        share("adapted_rand_error", "lower"),
        Metric("variation_of_information", "lower", "bit"),
        Metric("loss", "lower"),
    ),
    monitor="val_miou",
    options={
        "predict": (
            Option(
                "threshold",
                float,
                "The least probability of a class that a pixel is of; where classes overlap 0.5 if not given, else a "
                "pixel is of its most probable class.",
                minimum=0.0,
                maximum=1.0,
            ),
            *_VIEWS,
            Option("scores", bool, "Keep the probabilities of every pixel in the answers, for use in Python."),
        ),
        "eval": (
            Option("borders", bool, "How well borders are met, too: boundary F1 and Hausdorff distance. Slower."),
            Option(
                "regions",
                str,
                "The connected regions of this class, too: adapted Rand error and variation of information.",
                metavar="CLASS",
            ),
            *_VIEWS,
        ),
        "data": (
            Option(
                "ignore",
                int,
                "The value of masks that says that nothing is known of a pixel, in the place of what the data says or "
                "of 255.",
                minimum=0,
                maximum=65535,
                opens=True,
            ),
            Option("names", str, "Names of the classes, by their numbers.", metavar="NAME,...", opens=True),
            Option("overlapping", bool, "A pixel may be of several classes, or of none.", opens=True),
        ),
    },
    examples={
        "train": ("train segment --model unet --data scans/ --epochs 50",),
        "predict": ("predict runs/unet_scenes photos/ --out maps/ --format index",),
        "eval": ("eval --predictions masks/ --data street/ --split test --borders",),
    },
)
