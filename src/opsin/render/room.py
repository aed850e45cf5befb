"""What view synthesis brings, declared."""

from __future__ import annotations

from opsin.rooms import Metric, Option, Room, share

ROOM = Room(
    task="render",
    help="new views of a scene, from images with known cameras; volumes and meshes as images",
    networks="opsin.render.networks",
    formats=(
        "opsin.render.scene_views:FORMAT",
        "opsin.render.transforms_json:FORMAT",
        "opsin.render.colmap:FORMAT",
        "opsin.render.llff:FORMAT",
        "opsin.render.shape_source:FORMAT",
    ),
    trains="opsin.render.task:RenderTask",
    predicts="opsin.render.predict:RenderPredictor",
    evaluates="opsin.render.evaluate:RenderEvaluator",
    section="opsin.render.recipe:RenderSection",
    defaults={
        "optim": {"name": "adam", "lr": 0.001},
        "schedule": {"name": "cosine"},
        "train": {"epochs": 10, "batch_size": 1},
    },
    metrics=(
        Metric("psnr", unit="dB", digits=2, brief=True),
        Metric("ssim"),
        Metric("lpips", "lower"),
        Metric("depth_error", "lower"),
        share("iou"),
        share("chamfer", "lower"),
        Metric("euler", None, digits=0),
        Metric("euler_true", None, digits=0),
        Metric("floor_*", None, unit="dB", digits=2),
        Metric("loss", "lower", digits=5),
    ),
    monitor="val_psnr",
    options={
        "predict": (
            Option("path", str, "Cameras: orbit, spiral, or a JSON file of poses, as of Blender; orbit.",
                   metavar="FILE", local=True),
            Option("views", int, "Views along the path; 30.", minimum=1, maximum=10_000),
            Option("side", int, "Pixels of an image's longer side; as it was trained if not given.", minimum=1,
                   maximum=4096),
            Option("mesh", str, "Write the surface as a mesh: a file that ends in .ply, .obj or .stl.",
                   metavar="FILE", local=True),
            Option("resolution", int, "Of the mesh: places of a side of the grid; 128.", minimum=8, maximum=512),
            Option("level", float, "Of the mesh: the density, or the value, at its surface; found if not given."),
        ),
        "eval": (
            Option("lpips", str, "Measure LPIPS too, with this file's weights, such as alex.pth of the package lpips; "
                   "repeatable: a second file may hold the network's, else those of alexnet:imagenet1k are taken.",
                   metavar="FILE", repeatable=True, local=True),
        ),
        "data": (
            Option("near", float, "The least depth of the scene along the axes of cameras; found if not given.",
                   minimum=0.0, opens=True),
            Option("far", float, "The largest depth of the scene; found if not given.", minimum=0.0, opens=True),
            Option("background", str, "What images with alpha are laid over: white or black.", metavar="COLOUR",
                   opens=True),
            Option("alpha", str, "Whether colours are straight, or premultiplied by alpha; found if not given.",
                   metavar="KIND", opens=True),
            Option("hold_out", int, "Of views that are not divided, each so many-th is for testing; 8 is usual.",
                   minimum=2, opens=True),
            Option("cameras", str, "Draw the cameras in space into this image file.", metavar="FILE"),
        ),
    },
    checks="opsin.render.camera_drawing:check",
    commands={"render": "opsin.render.command:render"},
    examples={
        "train": ("train render --model fast_nerf --data lego/",),
        "predict": ("predict runs/fast_nerf_lego --path orbit --out views/",),
        "eval": ("eval runs/fast_nerf_lego --lpips alex.pth",),
        "data": ("data lego/ --cameras cameras.png",),
    },
)  # fmt: skip
