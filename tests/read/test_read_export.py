"""Exported recognizers read what the run reads, character by character, or are not written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import opsin
from opsin.engine.export import export
from opsin.errors import InputError, JobError
from opsin.read.program import ReaderProgram

from . import tiny_words


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_an_exported_file_reads_as_the_run_does(run: Path, format: str) -> None:
    pytest.importorskip({"onnx": "onnxruntime"}.get(format, format))
    written = export(run, format)
    assert written.same == 20  # all images of the test split, which has fewer than 256
    assert [one.name for one in written.outputs] == ["probabilities"]
    halved = export(run, format, run / f"half{written.path.suffix}", half=True)
    assert halved.half and "16 bits" in halved.describe()
    weights = "bin" if format == "openvino" else "onnx"
    sizes = [(run / f"{name}.{weights}").stat().st_size for name in ("half", "model")]
    assert sizes[0] < 0.85 * sizes[1]  # of a network so small that much is no weights
    images = torch.from_numpy(tiny_words.draw(12, seed=3)[0])
    expected = opsin.load(run).predict(images)
    for path in (written.path, halved.path):
        found = opsin.load(path).predict(images)
        assert [one.text for one in found] == [one.text for one in expected]
        assert found[0].score == pytest.approx(expected[0].score, abs=1e-2)
        assert found[0].characters[0]["left"] == expected[0].characters[0]["left"]
    assert opsin.load(written.path).predict(images, decode="beam")[0].text == expected[0].text


def test_a_single_other_character_refuses_the_file(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = ReaderProgram.decode
    seen: list[int] = []

    def faulty(self: ReaderProgram, outputs: dict[str, torch.Tensor]) -> list[object]:
        readings = decode(self, outputs)
        seen.append(len(readings))
        if len(seen) == 2:  # that of the file
            readings[7].labels[0] = (readings[7].labels[0] + 1) % 3  # type: ignore[index]
        return list(readings)

    monkeypatch.setattr(ReaderProgram, "decode", faulty)
    with pytest.raises(JobError, match="1 of 20 examples get another answer"):
        export(run, "torch")
    assert not (run / "model.pt2").exists()
    with pytest.raises(InputError, match="half is of onnx and openvino"):
        export(run, "torch", half=True)


def test_programs_are_read_to_the_end_or_between_blanks() -> None:
    def one_hot(path: list[int], count: int) -> dict[str, torch.Tensor]:
        return {"probabilities": torch.eye(count)[path][None]}

    until_end = ReaderProgram(lambda images: {}, {"blank": None, "end": 1, "first": 2})
    (reading,) = until_end.decode(one_hot([2, 3, 3, 1, 2], 4))
    assert (reading.labels, reading.steps) == ([0, 1, 1], [0, 1, 2])
    between = ReaderProgram(lambda images: {}, {"blank": 0, "end": None, "first": 1})
    (reading,) = between.decode(one_hot([0, 2, 2, 0, 2, 1, 0], 3))
    assert (reading.labels, reading.steps) == ([1, 1, 0], [1, 4, 5])
    with pytest.raises(ValueError, match="a blank or an end"):
        ReaderProgram(lambda images: {}, {"blank": None, "end": None, "first": 1})
