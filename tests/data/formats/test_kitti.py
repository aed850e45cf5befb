"""Lists of KITTI: the splits that they name, and what they name that has no labels."""

from __future__ import annotations

from pathlib import Path

from opsin.data.formats import kitti
from opsin.data.truth import Problem


def test_names_in_a_list_of_kitti_without_labels_are_noted(tmp_path: Path) -> None:
    (tmp_path / "ImageSets").mkdir()
    for split, names in (("train", "000001\n000007\n000002\n"), ("val", "000003\n"), ("test", "000008\n000009\n")):
        (tmp_path / "ImageSets" / f"{split}.txt").write_text(names)
    (tmp_path / "ImageSets" / "with_labels").mkdir()
    (tmp_path / "ImageSets" / "with_labels" / "val.txt").write_text("000001\n")  # beside the lists, not one of them
    problems: list[Problem] = []
    found = kitti._lists([tmp_path], problems, {"000001", "000002", "000003"})
    assert found == {"train": ["000001", "000002"], "val": ["000003"]}
    (problem,) = problems  # nothing of the test split has labels: that is no fault
    assert (problem.kind, Path(problem.path).name) == ("missing_annotation", "train.txt")
    assert problem.reason == "1 names have no file of labels, '000007' the first"
