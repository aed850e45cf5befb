"""What reading brings, declared."""

from __future__ import annotations

from opsin.rooms import Metric, Option, Room, share

# How texts are decoded, in use and in an evaluation; see `opsin.read.decoding`.
_DECODING = (
    Option("decode", str, "greedy, the best path, or beam, the best text of a search; greedy.", metavar="WAY"),
    Option("beam_width", int, "Prefixes that the search keeps at each step; 25.", minimum=1, maximum=1000),
    Option(
        "lexicon",
        str,
        "A file of words, one a line: nothing else is read. By a beam search.",
        metavar="FILE",
        local=True,
    ),
    Option(
        "language_model",
        str,
        "A file of text in the language, by whose characters the next one is weighed. By a beam search.",
        metavar="FILE",
        local=True,
    ),
    Option("language_weight", float, "How much the language model counts; 0.5.", minimum=0.001, maximum=10.0),
    Option(
        "label_bonus", float, "What each character adds to a text's score in the search; 0.", minimum=-10, maximum=10
    ),
)

ROOM = Room(
    task="read",
    help="the text of a cropped word or line",
    hub_tag="image-to-text",
    networks="opsin.read.networks",
    formats=(
        "opsin.data.formats.text_lists:FORMAT",
        "opsin.data.formats.text_lists:TABLE",
        "opsin.data.formats.text_lmdb:FORMAT",
        "opsin.data.formats.iiit5k:FORMAT",
        "opsin.data.formats.svt:WORDS",
        "opsin.data.formats.iam:FORMAT",
        "opsin.data.formats.icdar_text:LINES",
        "opsin.data.formats.svt:LINES",
        "opsin.data.formats.rimes:LINES",
        "opsin.data.formats.page_json:PADDLE_LINES",
        "opsin.data.formats.page_json:MMOCR_LINES",
        "opsin.data.formats.page_json:COCO_LINES",
        "opsin.data.formats.page_polygons:CVAT",
        "opsin.data.formats.page_polygons:LABELME",
        "opsin.data.formats.named_crops:FORMAT",
    ),
    reads="opsin.data.dataset_texts:READER",
    trains="opsin.read.task:ReadTask",
    predicts="opsin.read.predict:ReadPredictor",
    evaluates="opsin.read.evaluate:ReadEvaluator",
    scores="opsin.read.score:score",
    section="opsin.read.recipe:ReadSection",
    defaults={
        "optim": {"name": "adamw", "lr": 0.001, "weight_decay": 0.0001},
        "train": {"epochs": 50, "batch_size": 64, "clip_norm": 5.0},
    },
    starts="opsin.read.starting:choose",
    metrics=(
        share("word_accuracy", brief=True),
        share("word_accuracy_lexicon"),
        share("cer", "lower"),
        share("cer_without_spaces", "lower"),
        share("wer", "lower"),
        share("edit_similarity"),
        Metric("loss", "lower"),
    ),
    monitor="val_word_accuracy",
    options={
        "predict": _DECODING,
        "eval": (
            Option("ignore_case", bool, "Upper and lower case are one where texts are compared."),
            Option("alphanumeric", bool, "Of texts, letters a-z, A-Z and digits alone are compared."),
            *_DECODING,
        ),
        "data": (
            Option(
                "encoding",
                str,
                "Of files with texts, for example gb18030 or cp1252; UTF-8 if not given.",
                metavar="NAME",
                opens=True,
            ),
            Option(
                "subset",
                str,
                "Which test texts count: alphanumeric, those of letters and digits; alphanumeric-3, of them those of "
                "three and more.",
                metavar="NAME",
                opens=True,
            ),
            Option("level", str, "Of data that has both, as IAM: words or lines.", metavar="LEVEL", opens=True),
            Option("word_lists", str, "Of IIIT 5K-word: small (50) or medium (1,000).", metavar="SIZE", opens=True),
        ),
    },
    examples={
        "train": ("train read --model crnn --data words_train.zip --epochs 100",),
        "predict": ("predict runs/crnn_words crops/ --decode beam --lexicon words.txt",),
        "eval": ("eval runs/crnn_words --data words_test.zip --ignore-case --alphanumeric",),
    },
)
