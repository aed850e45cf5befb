"""What the task of sequences brings, declared."""

from __future__ import annotations

from opsin.rooms import Metric, Option, Room, share

_WRITING = (
    Option("beam", int, "Texts that a search keeps at each step; 1 writes the most probable symbol.", minimum=1,
           maximum=1000),
    Option("length_penalty", float, "Of a beam: how strongly long texts are favoured (alpha of Wu et al. 2016); 0.",
           minimum=0.0, maximum=10.0),
)  # fmt: skip

ROOM = Room(
    task="sequence",
    help="texts and series translated, continued, labelled, classified, measured; images described",
    networks="opsin.sequence.networks",
    formats=(
        "opsin.sequence.generators:FORMAT",
        "opsin.sequence.image_steps:FORMAT",
        "opsin.sequence.scene_captions:FORMAT",
        "opsin.sequence.files:FORMAT",
    ),
    trains="opsin.sequence.task:SequenceTask",
    predicts="opsin.sequence.predict:SequencePredictor",
    evaluates="opsin.sequence.evaluate:SequenceEvaluator",
    section="opsin.sequence.recipe:SequenceSection",
    defaults={
        "optim": {"name": "adamw", "lr": 0.001, "weight_decay": 0.0001},
        "train": {"epochs": 10, "batch_size": 64, "clip_norm": 1.0},
    },
    given="anything",
    metrics=(
        share("exact_match", brief=True),
        share("accuracy", brief=True),
        share("token_accuracy", brief=True),
        share("bleu"),
        share("cer", "lower"),
        share("wer", "lower"),
        Metric("perplexity", "lower", digits=3),
        Metric("mse", "lower", digits=6),
        Metric("mae", "lower", digits=6),
        Metric("loss", "lower"),
    ),
    monitor="val_loss",
    options={
        "predict": (
            *_WRITING,
            Option("temperature", float, "Draw symbols at random, by their probabilities to the power of 1 / T.",
                   minimum=0.0, maximum=100.0),
            Option("seed", int, "Of what is drawn at random; 0.", minimum=0),
            Option("max_length", int, "The most symbols that are written.", minimum=1, maximum=100_000),
        ),
        "eval": _WRITING,
        "data": (
            Option("form", str, "What a file holds: pairs, language, labels, classes or values.", metavar="NAME",
                   opens=True),
            Option("window", int, "Characters of the pieces of a text, 200; of a table of numbers steps, 50.",
                   minimum=2, opens=True),
            Option("horizon", int, "Of a table of numbers: the steps that follow a piece; 1.", minimum=1, opens=True),
            Option("into", str, "Of parallel files: the ending of those that are written, as en.", metavar="NAME",
                   opens=True),
            Option("encoding", str, "Of files with texts, for example cp1252; UTF-8 if not given.", metavar="NAME",
                   opens=True),
        ),
    },
    commands={"ladder": "opsin.sequence.ladder:ladder"},
    examples={
        "train": ("train sequence --model seq2seq --data reverse:20",),
        "predict": ("predict runs/seq2seq_dates 'May 3, 2021'",),
    },
)  # fmt: skip
