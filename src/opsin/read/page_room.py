"""What reading whole pages brings, declared: a pipeline of a detector and a recognizer."""

from __future__ import annotations

from opsin.rooms import Option, Room, share

ROOM = Room(
    task="pages",
    help="the text of whole pages, by a detector that finds lines and a recognizer that reads them",
    formats=(
        "opsin.data.formats.icdar_text:PAGES",
        "opsin.data.formats.svt:PAGES",
        "opsin.data.formats.rimes:PAGES",
        "opsin.data.formats.page_json:PADDLE_PAGES",
        "opsin.data.formats.page_json:MMOCR_PAGES",
        "opsin.data.formats.page_json:COCO_PAGES",
    ),
    predicts="opsin.read.pages:PagePredictor",
    evaluates="opsin.read.page_evaluate:PageEvaluator",
    parts={"detector": "detect", "recognizer": "read"},
    defaults={"train": {"batch_size": 1}},  # of an evaluation: pages may be large
    metrics=(
        share("word_f1", brief=True),
        *(share(name) for name in ("word_precision", "word_recall", "precision", "recall", "hmean", "end_to_end_*")),
        share("cer", "lower"),
        share("line_accuracy"),
    ),
    options={
        "predict": (
            Option(
                "threshold",
                float,
                "The least score of a line of the detector; the one that was best in its validation, if not given.",
                minimum=0.0,
                maximum=1.0,
            ),
            Option(
                "least_score",
                float,
                "Lines that are read with a lower score are left out.",
                minimum=0.0,
                maximum=1.0,
            ),
            Option(
                "order",
                str,
                "How lines are ordered: rows, from left to right whatever lies between; columns, split at every gap "
                "from top to bottom; auto, split where both sides are columns of running text.",
                default="auto",
                metavar="auto|rows|columns",
            ),
            Option(
                "turn",
                str,
                "By how many degrees clockwise the pages have to be turned to be upright; auto finds out, off does "
                "not.",
                default="auto",
                metavar="auto|off|90|180|270",
            ),
        ),
        "eval": (Option("ignore_case", bool, "Upper and lower case are one where texts are compared."),),
    },
    examples={
        "predict": (
            "predict --detector runs/ctpn --recognizer runs/crnn page.jpg --out drawn/",
            "predict --detector runs/ctpn --recognizer runs/crnn scan.pdf --format hocr --out text/",
            "predict pages.safetensors scans/ --format text --out text/",
        )
    },
)
