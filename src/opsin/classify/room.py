"""What classification brings, declared."""

from __future__ import annotations

from opsin.rooms import Metric, Option, Room, share

_SHARES = (
    *("accuracy", "top5_accuracy", "precision", "recall", "f1", "map", "f1_micro", "subset_accuracy"),
    *("hamming_accuracy",),
)

ROOM = Room(
    task="classify",
    help="one class of many for an image, or any number of classes at once",
    hub_tag="image-classification",
    networks="opsin.backbones",
    formats=(
        "opsin.data.formats.digits:FORMAT",
        "opsin.data.formats.folders:FORMAT",
        "opsin.data.formats.folders:ZIPPED",
        "opsin.data.formats.csv_labels:FORMAT",
        "opsin.data.formats.npz:FORMAT",
        "opsin.data.formats.idx:FORMAT",
        "opsin.data.formats.image_lists:FORMAT",
    ),
    reads="opsin.data.dataset_labels:READER",
    adapts="opsin.classify.own_network:OwnClassifier",
    trains="opsin.classify.task:ClassifyTask",
    predicts="opsin.classify.predict:ClassifyPredictor",
    evaluates="opsin.classify.evaluate:ClassifyEvaluator",
    scores="opsin.classify.score:score",
    section="opsin.classify.recipe:ClassifySection",
    moved={"data.multi_label": "multi_label"},
    starts="opsin.classify.starting:choose",
    metrics=(
        *(share(name) for name in _SHARES),
        share("ece*", "lower"),
        Metric("nll*", "lower"),
        Metric("loss", "lower"),
    ),
    monitor="val_accuracy",
    examples={
        "train": ("train classify --model resnet18 --weights imagenet1k --data photos/ --epochs 20",),
        "eval": ("eval --predictions answers.csv --data photos/ --split val",),
    },
    options={
        "predict": (
            Option("top", int, "How many classes to name in --json.", default=5, minimum=1),
            Option(
                "threshold",
                float,
                "The least probability of a class that an image has; with several classes an image 0.5 if not given.",
                minimum=0.0,
                maximum=1.0,
            ),
        ),
        "eval": (
            Option("multi_label", bool, "With --predictions: an image may have any number of classes.", opens=True),
            Option("class_folders", bool, "With --predictions: each folder of the data is a class.", opens=True),
        ),
        "data": (
            Option("multi_label", bool, "An image may have any number of classes.", opens=True),
            Option("class_folders", bool, "Each folder is a class, whatever else it looks like.", opens=True),
        ),
    },
)
