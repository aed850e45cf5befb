"""What there is in place of a network that a Darknet .cfg file describes."""

from __future__ import annotations

import re

from opsin import registry


def describe(file: str) -> str:
    """Which networks opsin has by name, the file's own if it is one of them, and how their .weights are loaded."""
    stem = re.split(r"[/\\]", file)[-1][: -len(".cfg")].casefold().replace("-", "_")
    known = [name for name in registry.list_models("yolo") if not name.endswith("_asff")]
    own = stem if stem in known else next((name for name in reversed(known) if stem.startswith(f"{name}_")), None)
    has = f"it has {own} by name" if own else f"by name it has {', '.join(known)}"
    return (
        f"opsin builds no network from a Darknet .cfg; {has} (opsin models), and its .weights load by load_darknet of "
        f"opsin.detect.darknet_weights: load_darknet(opsin.create_model({own or 'yolov3'!r}), FILE)"
    )
