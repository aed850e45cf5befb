"""What detection brings, declared."""

from __future__ import annotations

from opsin.rooms import Metric, Option, Room, share

_SHARES = ("map*", "mask_map*", "mar_*", "voc_map*", "precision", "recall", "f1", "hmean*", "deteval_*", "matched_iou")

ROOM = Room(
    task="detect",
    help="boxes, classes and scores of the objects in an image, and their masks",
    hub_tag="object-detection",
    networks="opsin.detect.networks",
    formats=(
        "opsin.data.formats.digit_scenes:FORMAT",
        "opsin.data.formats.voc:FORMAT",
        "opsin.data.formats.coco:FORMAT",
        "opsin.data.formats.yolo:FORMAT",
        "opsin.data.formats.cvat:FORMAT",
        "opsin.data.formats.labelme:FORMAT",
        "opsin.data.formats.kitti:FORMAT",
        "opsin.data.formats.openimages:FORMAT",
        "opsin.data.formats.wider_face:FORMAT",
        "opsin.data.formats.createml:FORMAT",
        "opsin.data.formats.dota:FORMAT",
        "opsin.data.formats.icdar_text:PAGES",
        "opsin.data.formats.svt:PAGES",
        "opsin.data.formats.rimes:PAGES",
        "opsin.data.formats.page_json:PADDLE_PAGES",
        "opsin.data.formats.page_json:MMOCR_PAGES",
        "opsin.data.formats.page_json:COCO_PAGES",
        "opsin.data.formats.csv_boxes:FORMAT",
    ),
    reads="opsin.data.dataset_boxes:READER",
    adapts="opsin.detect.own_network:OwnDetector",
    trains="opsin.detect.task:DetectTask",
    predicts="opsin.detect.predict:DetectPredictor",
    evaluates="opsin.detect.evaluate:DetectEvaluator",
    scores="opsin.detect.score:score",
    section="opsin.detect.recipe:DetectSection",
    moved={
        "data.joint": "joint",
        "data.joint_ratio": "joint_ratio",
        "data.multi_label": "joint_multi_label",
        "train.multi_scale": "multi_scale",
    },
    # What trains any of the detectors on some hundred images; the papers' long schedules are in the recipes.
    defaults={
        "optim": {"name": "adamw", "lr": 0.001, "weight_decay": 0.0001},
        "schedule": {"name": "cosine", "warmup_epochs": 1.0},
        "train": {"epochs": 50, "batch_size": 16, "clip_norm": 10.0},
    },
    starts="opsin.detect.anchor_fitting:choose",
    metrics=(
        share("map_50", brief=True),
        *(share(name) for name in _SHARES),
        share("cost_*", "lower"),
        Metric("loss", "lower"),
    ),
    monitor="val_map",
    options={
        "predict": (
            Option(
                "threshold",
                float,
                "The least score of an object; the one that was best in validation, if not given.",
                minimum=0.0,
                maximum=1.0,
                also="score_threshold",
            ),
            Option(
                "iou_threshold",
                float,
                "Of two boxes of a class that overlap by more, the less certain one is left out.",
                minimum=0.0,
                maximum=1.0,
            ),
            Option("limit", int, "Objects of an image, at most.", minimum=1),
        ),
        "eval": (
            Option(
                "truncated_svd",
                str,
                "Of a Fast R-CNN: evaluate it with these layers decomposed, for example 1024,256; says what it saves.",
                metavar="FC6,FC7",
            ),
            Option(
                "iou",
                float,
                "An IoU from which on a box is right, in the place of COCO's 0.5 to 0.95 and VOC's 0.5. Repeatable: "
                "the mean over them, and each by itself.",
                minimum=0.0,
                maximum=1.0,
                repeatable=True,
            ),
            Option(
                "protocol",
                str,
                "Whose average precision: coco or voc; both if not given. icdar: both, and the hmean of lines of text "
                "by ICDAR's IoU protocol and by DetEval.",
                metavar="coco|voc|icdar",
            ),
            Option("unrefined", bool, "Of ctpn: lines end where their columns end, without side refinement."),
        ),
        "data": (
            Option(
                "model",
                str,
                "A detector, or a recipe of one: find the objects that are matched to none of its anchors or cells.",
                metavar="MODEL|RECIPE",
                short="-m",
            ),
            Option(
                "proposals",
                str,
                "selective_search_fast, selective_search_quality, sliding_windows, or a trained detector that looks at "
                "regions: how many objects of a split its proposals find. They are kept for trainings.",
                metavar="METHOD|RUN",
                short="-p",
            ),
            Option(
                "set",
                str,
                "With --model any key of the recipe, for example data.size=320; with --proposals an option of the "
                "method, for example limit=500. Repeatable.",
                metavar="KEY=VALUE",
                repeatable=True,
            ),
        ),
    },
    examples={
        "train": ("train detect --model ssdlite --data annotated/ --epochs 50",),
        "eval": ("eval --predictions results.json --data instances_val2017.json --iou 0.5 --iou 0.75",),
    },
    checks="opsin.detect.data_check:check",
    not_built={"*.cfg": "opsin.detect.darknet_cfg:describe"},
)
