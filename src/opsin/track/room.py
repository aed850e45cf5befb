"""What tracking brings, declared."""

from __future__ import annotations

from opsin.rooms import Metric, Option, Room, share

_SHARES = [
    "deta",
    "assa",
    "detre",
    "detpr",
    "assre",
    "asspr",
    "loca",
    "owta",
    "hota_0",
    "loca_0",
    "hotaloca_0",
    "motp",
    "recall",
    "precision",
    "f1",
    "moda",
    "smota",
    "mota_log",
    "mostly_tracked_share",
    "idp",
    "idr",
]
_LOWER = "motp_distance", "mostly_lost_share"
_COUNTS = {"matches": "higher", "mostly_tracked": "higher", "id_true_positives": "higher"}
_ERRORS = [
    "misses",
    "false_positives",
    "switches",
    "fragments",
    "mostly_lost",
    "id_false_negatives",
    "id_false_positives",
]

_FORMATS = ("MOVING_SCENES", "MOT", "KITTI", "DETRAC", "CVML", "CVAT", "IDL", "COCO", "CSV")

ROOM = Room(
    task="track",
    help="which objects of a video are the same from frame to frame",
    formats=tuple(f"opsin.track.data:{name}" for name in _FORMATS),
    scores="opsin.track.score:score",
    metrics=(
        share("hota", brief=True),
        share("mota"),
        share("idf1"),
        *(share(name) for name in _SHARES),
        *(share(name, "lower") for name in _LOWER),
        share("partly_tracked_share", None),
        Metric("false_positives_per_frame", "lower"),
        *(Metric(name, "higher", digits=0) for name in _COUNTS),
        *(Metric(name, "lower", digits=0) for name in _ERRORS),
        Metric("partly_tracked", None, digits=0),
    ),
    monitor="hota",
    options={
        "eval": (
            Option(
                "protocol",
                str,
                "What counts: mot15, mot17 (2016 too), mot20 or kitti, as the official tools have it; plain; or "
                "any_class, where classes say nothing. That of the data if not given.",
            ),
            Option(
                "iou",
                float,
                "The least IoU of a match for MOTA, IDF1 and all that goes with them, 0.5 if not given; HOTA has its "
                "own nineteen.",
                minimum=0.01,
                maximum=1.0,
            ),
            Option(
                "of_class",
                str,
                "Evaluate this class alone. Tracks of a file that names no classes are taken to be of it. Repeatable.",
                metavar="CLASS",
                repeatable=True,
            ),
            Option(
                "first_frame",
                int,
                "The number of the first frame in the file of tracks, where that is not what its format says.",
                minimum=0,
                maximum=1,
            ),
            Option(
                "ladder",
                bool,
                "How good the tracks would be with perfect linking, association or detections: where the error is.",
            ),
        ),
    },
    commands={"track": "opsin.track.command:track"},
    examples={
        "track": (
            "track runs/yolov3_street street.mp4 --tracker byte_track --out tracked/",
            "track MOT15/TUD-Campus/det/det.txt --set max_age=30 --out tracked/",
            "track detections.json street.mp4 --count lines.json --out tracked/",
            "track --list",
        ),
        "eval": (
            "eval tracks/ --data MOT17/train/MOT17-02-FRCNN",
            "eval 0000.txt --data kitti/label_02/0000.txt --of-class car",
        ),
    },
)
