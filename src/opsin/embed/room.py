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
        "opsin.data.formats.identity_labels:NPZ",
        "opsin.data.formats.identity_labels:IDX",
        "opsin.data.formats.identity_labels:LISTS",
        "opsin.data.formats.identity_labels:CSV",
        "opsin.data.formats.identity_labels:ZIPPED",
        "opsin.data.formats.identity_labels:FOLDERS",
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
    metrics=(
        share("auc", brief=True),
        share("eer", "lower"),
        share("recall@*"),
        share("r_precision"),
        share("map@r"),
        share("nmi"),
        share("tar@*"),
        share("far@*", "lower"),
        share("fold_accuracy"),
        share("*one_shot_accuracy"),
        share("*way_*shot_accuracy"),
        share("accuracy"),
        Metric("within_between", "lower"),
        Metric("loss", "lower"),
    ),
    monitor="val_auc",
    checks="opsin.embed.data_check:check",
    commands={"gallery": "opsin.embed.command:gallery"},
    options={
        "predict": (
            Option(
                "gallery",
                str,
                "Say who each image is, of these people: a folder with a folder of images for each, or a file of opsin "
                "gallery.",
                metavar="FOLDER",
                local=True,
            ),
            Option("top", int, "With --gallery, how many people to name, the nearest first.", default=5, minimum=1),
            Option(
                "points",
                str,
                "A CSV of five points of each face, path,x1,y1,...,x5,y5: eyes, nose, corners of the mouth. Crops are "
                "aligned by them.",
                metavar="FILE",
                local=True,
            ),
            Option("embeddings", str, "Write the embeddings of all images to FILE.npz.", metavar="FILE", writes=True),
        ),
        "eval": (
            Option(
                "far",
                float,
                "Fit the threshold of verification for this false accept rate, such as 1e-3, on the people of the val "
                "split, or of --data, and keep it with the model.",
                minimum=1e-9,
                maximum=0.5,
                metavar="RATE",
                fits=True,
            ),
            Option("ways", int, "Few-shot episodes of so many identities; 5.", minimum=2, maximum=1000),
            Option("shots", int, "Few-shot episodes with so many images shown of each; 1.", minimum=1, maximum=100),
            Option("hausdorff", bool, "Of one-shot runs the modified Hausdorff distance too, a baseline. Slow."),
            Option("nmi", bool, "Cluster the embeddings, and say how well clusters are identities. Slow."),
            Option("faiss", bool, "Let FAISS search for neighbours; the extra embed installs it."),
        ),
        "data": (
            Option("closed", bool, "Those met in use are those of the training, as classes are.", opens=True),
            Option(
                "fold",
                str,
                "Join all splits, and make the k-th of n folds of the identities the test split: 1/5.",
                metavar="K/N",
                opens=True,
            ),
            Option("near", bool, "Find images of one split that are almost those of another. Slow."),
            Option(
                "neighbours",
                str,
                "Find labels that the nearest images contradict: by the embeddings of a run, or by pixels.",
                metavar="RUN|pixels",
            ),
        ),
    },
    examples={
        "train": ("train embed --model conv4 --data characters/ --epochs 50",),
        "eval": ("eval runs/faces --far 1e-3",),
        "predict": (
            "predict runs/faces one.jpg other.jpg    (the same or not)",
            "predict runs/faces door.jpg --gallery people/ --top 3",
            "predict runs/faces photos/ --embeddings photos.npz",
        ),
    },
)
