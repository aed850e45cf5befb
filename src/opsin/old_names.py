"""Names that modules had earlier: they are found for one release, with a line that says the new one.

A finder that Python asks only where nothing else knows a module; see `sys.meta_path`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

from opsin import errors

MOVED = {
    "opsin.analyze.comparing": "opsin.analyze.compare",
    "opsin.analyze.explaining": "opsin.analyze.explain",
    "opsin.analyze.explanation": "opsin.analyze.explain_schema",
    "opsin.analyze.sight": "opsin.analyze.field_arithmetic",
    "opsin.analyze.viewing": "opsin.analyze.visualize",
    "opsin.classify.draw": "opsin.classify.drawing",
    "opsin.classify.figures": "opsin.classify.report",
    "opsin.data.annotations": "opsin.data.formats.annotations",
    "opsin.data.arrays": "opsin.data.formats.npz",
    "opsin.data.augmentation": "opsin.data.transforms.augmentation",
    "opsin.data.box_doctor": "opsin.data.box_check",
    "opsin.data.boxes_csv": "opsin.data.formats.csv_boxes",
    "opsin.data.builtin": "opsin.data.formats.digits",
    "opsin.data.coco": "opsin.data.formats.coco",
    "opsin.data.colour": "opsin.data.transforms.colour",
    "opsin.data.detecting": "opsin.data.transforms.augmentation",
    "opsin.data.digit_scenes": "opsin.data.formats.digit_scenes",
    "opsin.data.dividing": "opsin.data.splits",
    "opsin.data.doctor": "opsin.data.dataset_check",
    "opsin.data.folders": "opsin.data.formats.folders",
    "opsin.data.idx": "opsin.data.formats.idx",
    "opsin.data.joining": "opsin.data.joint_training",
    "opsin.data.mixing": "opsin.data.transforms.batch_mixing",
    "opsin.data.opening": "opsin.data.open_source",
    "opsin.data.outlines": "opsin.data.masks",
    "opsin.data.picturing": "opsin.data.contact_sheet",
    "opsin.data.placing": "opsin.data.coordinates",
    "opsin.data.reframing": "opsin.data.transforms.crops",
    "opsin.data.scenes": "opsin.data.transforms.sample",
    "opsin.data.tables": "opsin.data.formats.csv_labels",
    "opsin.data.voc": "opsin.data.formats.voc",
    "opsin.data.warping": "opsin.data.transforms.geometry",
    "opsin.data.yolo_txt": "opsin.data.formats.yolo",
    "opsin.detect.budget": "opsin.detect.error_budget",
    "opsin.detect.candidates": "opsin.detect.postprocess",
    "opsin.detect.draw": "opsin.detect.drawing",
    "opsin.detect.figures": "opsin.detect.report",
    "opsin.detect.precision": "opsin.detect.average_precision",
    "opsin.detect.stages": "opsin.engine.stages",
    "opsin.detect.thinning": "opsin.detect.truncated_svd",
    "opsin.detect.unmatched": "opsin.detect.anchor_coverage",
    "opsin.engine.lettering": "opsin.data.drawing",
    "opsin.ops.overlaps": "opsin.ops.overlapping_pairs",
    "opsin.ops.suppression": "opsin.ops.non_maximum_suppression",
}


class OldNames:
    """Finds a module of `MOVED`: what comes is the new one, under both names."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in MOVED else None  # type: ignore[arg-type]  # a loader by form

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        errors.say(f"{spec.name} is called {MOVED[spec.name]} now; the old name goes with the next release")
        module = importlib.import_module(MOVED[spec.name])
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It ran under its new name, and keeps that: Python has just given it the old one's specification."""
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state


def install() -> None:
    """Ask for old names where no module is found."""
    if not any(isinstance(finder, OldNames) for finder in sys.meta_path):
        sys.meta_path.append(OldNames())  # type: ignore[arg-type]  # a finder by form: the abstract one costs 9 ms
