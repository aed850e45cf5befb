"""What the task of named points brings, declared."""

from __future__ import annotations

from opsin.rooms import Metric, Option, Room, share

_FLIP = Option("flip", bool, "Look at each image mirrored left to right too, and take the mean.")

ROOM = Room(
    task="landmark",
    help="where named points of an object are, such as the corners of eyes",
    hub_tag="keypoint-detection",
    networks="opsin.landmark.networks",
    formats=(
        "opsin.data.formats.drawn_faces:FORMAT",
        "opsin.data.formats.csv_points:FORMAT",
        "opsin.data.formats.coco_keypoints:FORMAT",
        "opsin.data.formats.pts_files:FORMAT",
        "opsin.data.formats.point_lists:FORMAT",
        "opsin.data.formats.point_json:FORMAT",
    ),
    trains="opsin.landmark.task:LandmarkTask",
    predicts="opsin.landmark.predict:LandmarkPredictor",
    evaluates="opsin.landmark.evaluate:LandmarkEvaluator",
    section="opsin.landmark.recipe:LandmarkSection",
    defaults={
        "optim": {"name": "adamw", "lr": 0.001, "weight_decay": 0.0001},
        "schedule": {"name": "cosine", "warmup_epochs": 1.0},
        "train": {"epochs": 100, "batch_size": 16, "clip_norm": 10.0},
    },
    metrics=(
        share("nme_inter_ocular", "lower", brief=True),
        share("nme_box_diagonal", "lower", brief=True),
        share("nme_*", "lower"),
        share("auc_*"),
        share("failure_rate_*", "lower"),
        Metric("loss", "lower"),
    ),
    monitor="val_nme_image_diagonal",
    options={
        "predict": (
            _FLIP,
            Option(
                "box",
                str,
                "Look at the part of the image around this box, enlarged as in the training.",
                metavar="X1,Y1,X2,Y2",
            ),
            Option(
                "smooth",
                float,
                "Smooth the frames of a video by a one-euro filter with this cutoff in cycles a frame; 0.03 is strong.",
                minimum=0.001,
                maximum=0.5,
                metavar="CUTOFF",
            ),
        ),
        "eval": (
            _FLIP,
            Option(
                "normalizer",
                str,
                "What errors are divided by in curve and failures, such as inter_ocular or box_diagonal.",
                metavar="NAME",
            ),
            Option(
                "boxes",
                str,
                "Measure how errors grow where the box is shifted or scaled, too, and draw that into this image file.",
                metavar="FILE",
            ),
        ),
        "data": (
            Option("crop", str, "Squares around box, points, or none: whole images.", metavar="AROUND", opens=True),
            Option("box_scale", float, "How much larger a square is than its box; 1.25.", minimum=0.1, opens=True),
            Option("pool_splits", bool, "Put the data's own splits together.", opens=True),
            Option(
                "person_before", str, "The sign behind a person in the names of images.", metavar="SIGN", opens=True
            ),
        ),
    },
    examples={
        "train": ("train landmark --model wing_cnn6 --data faces/points.csv --epochs 200",),
        "predict": ("predict runs/wing_cnn6_points photos/ --out drawn/",),
        "eval": ("eval runs/wing_cnn6_points --split test --flip",),
    },
)
