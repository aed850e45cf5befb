"""Settings of a tracker that are searched on given truth, and refused there afterwards."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.track.conftest import Call

from opsin.errors import InputError
from opsin.track.rules import find_rules
from opsin.track.tracks import Tracks
from opsin.track.tuned_settings import TunedSettings, digests_of, read_settings, refuse_tuned
from opsin.track.tuning import Search


def gaps(offset: float = 0.0) -> tuple[Tracks, Tracks]:
    """Two objects that are both undetected in 4 of 30 frames: SORT loses them, unless it waits for so long."""
    frames = np.repeat(np.arange(30), 2)
    x = offset + 3.0 * frames
    y = np.tile([0.0, 200.0], 30)
    truth = Tracks.build(frames, np.stack([x, y, x + 40, y + 80], 1), np.tile([1, 2], 30), num_frames=30, name="gaps")
    seen = (frames < 10) | (frames >= 14)
    return truth, replace(truth.select(seen), ids=np.full(seen.sum(), -1))


def search(trials: int = 15, **more: Any) -> TunedSettings:
    truth, detections = gaps()
    return Search("sort", {"gaps": detections}, {"gaps": truth}, find_rules("plain"), trials=trials, **more).run(
        quiet=True
    )  # type: ignore[arg-type]


def test_the_setting_that_matters_is_found() -> None:
    pytest.importorskip("optuna")
    found = search()
    assert found.settings["max_age"] >= 5  # frames from the last detection to the next
    assert found.value > found.before and found.trials == 15
    assert search().settings == found.settings  # the same seed


def test_the_trackers_own_settings_are_tried_first() -> None:
    pytest.importorskip("optuna")
    found = search(1)
    assert found.settings == {} and found.value == found.before


def test_what_is_set_is_not_searched() -> None:
    pytest.importorskip("optuna")
    assert search(5, fixed={"max_age": 2}).settings["max_age"] == 2
    with pytest.raises(InputError, match="no setting left to search"):
        search(1, fixed={"max_age": 1, "min_hits": 3, "min_iou": 0.3})
    with pytest.raises(InputError, match="did you mean hota"):
        search(1, metric="hot")


def test_digests_know_a_sequence_by_its_boxes_alone() -> None:
    truth, _ = gaps()
    renamed = replace(truth, ids=truth.ids + 7, name="other", classes=("person",))
    assert digests_of(renamed) == digests_of(truth) and len(digests_of(truth)) == 30
    later = truth.select(truth.frames >= 15)
    moved = replace(later, frames=later.frames - 15)
    assert set(digests_of(moved)) <= set(digests_of(truth))
    assert not set(digests_of(gaps(1.0)[0])) & set(digests_of(truth))


def test_a_part_under_another_name_is_refused_and_another_sequence_is_not() -> None:
    truth, _ = gaps()
    tuned_on = {"gaps": digests_of(truth)}
    half = truth.select(truth.frames < 15)
    with pytest.raises(InputError, match="were tuned on half, there gaps: 15 of its 15 frames"):
        refuse_tuned(tuned_on, {"half": half}, "sort")
    refuse_tuned(tuned_on, {"gaps": gaps(1.0)[0]}, "sort")
    refuse_tuned({}, {"gaps": truth}, "sort")


def test_settings_survive_their_file(tmp_path: Path) -> None:
    settings = TunedSettings("sort", {"max_age": 9, "min_iou": 0.25}, {"a": ("00ff",)}, "hota", 0.4, 0.5, 12)
    settings.write(tmp_path / "settings.json")
    assert read_settings(tmp_path / "settings.json") == settings


@pytest.mark.parametrize("content", ["", "{}", '{"format": "other"}', '{"format": "opsin tracker settings"}', "[1]"])
def test_other_files_are_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(content)
    with pytest.raises(InputError, match="holds no settings of a tracker"):
        read_settings(tmp_path / "s.json")


@pytest.mark.real_data
def test_tuned_on_one_sequence_and_evaluated_on_the_other(opsin: Call, data_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    campus, stadtmitte = data_dir / "mot15/TUD-Campus", data_dir / "mot15/TUD-Stadtmitte"
    tuned = tmp_path / "tuned"
    done = opsin("track", campus, "--truth", campus, "--tune", "--trials", 4, "--out", tuned)
    assert done.status == 0 and "sort: hota 45.26 % with its own settings" in done.out
    again = ("--tracker", tuned / "settings.json")
    refused = opsin("track", campus, "--truth", campus, *again)
    assert refused.status == 2 and "were tuned on TUD-Campus: 71 of its 71 frames" in refused.err
    assert opsin("track", stadtmitte, "--truth", stadtmitte, *again).status == 0
    assert opsin("track", campus, *again, "--out", tmp_path / "out").status == 0  # tracking itself is nobody's business
    assert json.loads((tmp_path / "out/tracks.json").read_text())["tuned_on"].keys() == {"TUD-Campus"}
    refused = opsin("eval", tmp_path / "out", "--data", campus)
    assert refused.status == 2 and "evaluate on another sequence" in refused.err
    assert "say where it is, with --truth" in opsin("track", campus, "--tune").err
