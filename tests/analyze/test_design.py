"""`opsin design`: what is trained, how it goes on, and what its page says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import opsin
from opsin.analyze import design as designing
from opsin.engine import trainings
from opsin.engine.trainings import Trained, Wanted
from opsin.errors import InputError, JobError

pytestmark = pytest.mark.rendered


def quiet(line: str) -> None:
    pass


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> list[Wanted]:
    """Trainings that train nothing: deeper is better, to 20 blocks."""
    asked: list[Wanted] = []

    def train(wanted: Wanted, folder: Path, say: Any, watching: Any = ()) -> Trained:
        asked.append(wanted)
        depth = sum(wanted.load().model.options["depths"])
        value = 0.95 - 0.01 * abs(depth - 20)
        return Trained(wanted.name, folder, value, {wanted.metric: value}, [{"epoch": 1.0, "val_accuracy": value}], 1.0)

    monkeypatch.setattr(trainings, "train_one", train)
    monkeypatch.setattr(designing, "_seconds", lambda model, images: 1e-3 * sum(p.numel() for p in model.parameters()))
    return asked


LIMITS: dict[str, Any] = {"limits": ["macs=2M..4M"], "say": quiet}


def test_spaces_are_compared(tmp_path: Path, pretend: list[Wanted]) -> None:
    found = opsin.design(["anynetx_a", "regnetx"], samples=8, epochs=2, out=tmp_path / "d", **LIMITS)
    assert len(pretend) == 16 and {one.load().train.epochs for one in pretend} == {2}
    assert pretend[0].load().schedule.warmup_epochs == 0.4  # a fifth of them; the recipe's is 2
    errors = found.errors("regnetx")
    assert errors == sorted(errors) and len(errors) == 8
    best = found.of("regnetx")[0]
    depth = sum(best.sample.stages.depths)
    assert best.error == pytest.approx(0.05 + 0.01 * abs(depth - 20))
    assert found.trends("regnetx")["depth"].low <= depth <= found.trends("regnetx")["depth"].high
    assert found.predictors()["params"] == pytest.approx(1.0)  # the seconds are the parameters here
    written = json.loads((tmp_path / "d" / "design.json").read_text())
    assert written["errors"]["regnetx"] == errors and len(written["networks"]) == 16
    page = (tmp_path / "d" / "report.html").read_text()
    for text in ("Distributions of errors", "Widths of the best of anynetx_a", "Trends", "What predicts the time"):
        assert text in page
    assert "<script" not in page and "http://" not in page.replace("http://www.w3.org", "")
    more = opsin.design(resume=tmp_path / "d", samples=9, say=quiet)
    assert [one.sample for one in more.networks[:8]] == [one.sample for one in found.networks[:8]]
    assert len(more.networks) == 18


def test_it_trains(tmp_path: Path) -> None:
    found = opsin.design(
        ["regnetx"],
        limits=["macs=0.5M..1M"],
        samples=1,
        epochs=1,
        block="inverted_residual",
        overrides={"data.limit": 32, "data.size": 16},
        out=tmp_path / "d",
        say=quiet,
    )
    (one,) = found.networks
    assert one.error is not None and 0 <= one.error <= 1 and one.seconds is not None and one.seconds > 0
    said: list[str] = []
    opsin.design(resume=tmp_path / "d", samples=1, say=said.append)
    assert any("from the cache" in line for line in said)


@pytest.mark.parametrize(
    ("spaces", "options", "message"),
    [
        ([], {}, "say which design spaces"),
        (["regnet"], {}, "unknown design space 'regnet'; did you mean regnetx"),
        (["regnetx", "regnetx"], {}, "given twice"),
        (["regnetx"], {"limits": []}, "without a limit large networks would win"),
        (["regnetx"], {"block": "basic"}, "unknown block 'basic'"),
        (["regnetx"], {"recipe": "ssd_scenes"}, "of networks for classify, and the recipe is of detect"),
        (["regnetx"], {"samples": 0}, "samples is 0"),
        (["regnetx"], {"parallel": 0}, "parallel is 0"),
    ],
)
def test_what_cannot_be_is_refused(spaces: list[str], options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        opsin.design(spaces, out=tmp_path / "d", **{**LIMITS, **options})
    assert not (tmp_path / "d").exists()


def test_folders_are_not_mixed_up(tmp_path: Path, pretend: list[Wanted], monkeypatch: pytest.MonkeyPatch) -> None:
    opsin.design(["regnetx"], samples=1, out=tmp_path / "d", **LIMITS)
    with pytest.raises(InputError, match="already holds a design; continue it with --resume"):
        opsin.design(["regnetx"], samples=1, out=tmp_path / "d", **LIMITS)
    with pytest.raises(InputError, match="no design at"):
        opsin.design(resume=tmp_path, say=quiet)
    monkeypatch.setattr(
        trainings, "train_one", lambda w, f, s: Trained(w.name, f, None, error="the loss is not finite")
    )
    with pytest.raises(JobError, match="none of the trainings ended well; the last one: the loss is not finite"):
        opsin.design(["regnetx"], samples=1, out=tmp_path / "e", **LIMITS)
