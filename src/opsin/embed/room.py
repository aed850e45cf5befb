"""What embedding brings, declared."""

from __future__ import annotations

from opsin.rooms import Metric, Option, Room, share

ROOM = Room(
    task="embed",
    help="who or what an image shows, by distances: verification, retrieval, few-shot learning",
    hub_tag="image-feature-extraction",
    networks="opsin.embed.networks",
    formats=(
        "opsin.data.formats.identity_labels:DIGITS",
        "opsin.data.formats.identity_labels:FOLDERS",
        "opsin.data.formats.identity_labels:ZIPPED",
        "opsin.data.formats.identity_labels:CSV",
        "opsin.data.formats.identity_labels:NPZ",
        "opsin.data.formats.identity_labels:IDX",
        "opsin.data.formats.identity_labels:LISTS",
        "opsin.data.formats.omniglot:FORMAT",
        "opsin.data.formats.omniglot:DRAWINGS",
        "opsin.data.formats.omniglot:RUNS",
        "opsin.data.formats.pair_lists:LFW",
        "opsin.data.formats.pair_lists:CSV",
        "opsin.data.formats.retrieval_sets:CUB",
        "opsin.data.formats.retrieval_sets:SOP",
    ),
    trains="opsin.embed.task:EmbedTask",
    predicts="opsin.embed.predict:EmbedPredictor",
    evaluates="opsin.embed.evaluate:EmbedEvaluator",
    section="opsin.embed.recipe:EmbedSection",
    defaults={
        "optim": {"name": "adamw", "lr": 0.001, "weight_decay": 0.0001},
        "schedule": {"name": "cosine", "warmup_epochs": 1.0},
        "train": {"epochs": 30, "batch_size": 64},
    },
    starts="opsin.embed.starting:choose",
    metrics=(share("auc", brief=True), share("eer", "lower"), share("accuracy"), Metric("loss", "lower")),
    monitor="val_auc",
    options={
        "data": (Option("closed", bool, "Those met in use are those of the training, as classes are.", opens=True),),
    },
    examples={"train": ("train embed --model conv4 --data characters/ --epochs 50",)},
)
