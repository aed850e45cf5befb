"""What reading brings, declared."""

from __future__ import annotations

from opsin.rooms import Metric, Room, share

ROOM = Room(
    task="read",
    help="the text of a cropped word or line",
    hub_tag="image-to-text",
    networks="opsin.read.networks",
    formats=("opsin.data.formats.word_archives:FORMAT",),
    trains="opsin.read.task:ReadTask",
    predicts="opsin.read.predict:ReadPredictor",
    evaluates="opsin.read.evaluate:ReadEvaluator",
    section="opsin.read.recipe:ReadSection",
    defaults={
        "optim": {"name": "adamw", "lr": 0.001, "weight_decay": 0.0001},
        "train": {"epochs": 50, "batch_size": 64, "clip_norm": 5.0},
    },
    metrics=(share("word_accuracy", brief=True), share("cer", "lower"), share("wer", "lower"), Metric("loss", "lower")),
    monitor="val_word_accuracy",
)
