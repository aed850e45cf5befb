"""What reading brings, declared."""

from __future__ import annotations

from opsin.rooms import Metric, Room, share

ROOM = Room(
    task="read",
    help="the text of a cropped word or line",
    hub_tag="image-to-text",
    networks="opsin.read.networks",
    formats=(),
    reads="opsin.data.dataset_texts:READER",
    trains="opsin.read.task:ReadTask",
    predicts="opsin.read.predict:ReadPredictor",
    evaluates="opsin.read.evaluate:ReadEvaluator",
    scores="opsin.read.score:score",
    section="opsin.read.recipe:ReadSection",
    metrics=(share("word_accuracy", brief=True), share("cer", "lower"), share("wer", "lower"), Metric("loss", "lower")),
    monitor="val_word_accuracy",
)
