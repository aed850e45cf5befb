"""CTPN: slices, matching, losses and lines by hand and against plain versions; trained, used and exported."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from opsin import registry
from opsin.data import Preprocessing
from opsin.detect.ctpn import CTPN, HEIGHTS
from opsin.detect.detector import Outputs
from opsin.detect.evaluate import unrefined_rules
from opsin.detect.postprocess import Selection
from opsin.detect.program import DetectorProgram, decoding_of
from opsin.detect.targets import batch_targets, return_polygons
from opsin.detect.text_lines import LineRules, connect, find_lines, fit_quads
from opsin.detect.text_slices import cut_lines, match_slices
from opsin.errors import InputError
from opsin.ops import pairwise_iou
from opsin.ops.matching import match_anchors
from opsin.structures import Instances

MANY = Selection(score_threshold=0.0, iou_threshold=0.3, candidates=1000, limit=100)


def small(**options: Any) -> CTPN:
    torch.manual_seed(0)
    given = {"backbone": "mobilenet_v3_small", "backbone_options": {"width": 0.35}, "hidden": 8, "features": 16}
    return CTPN(**{**given, **options}).eval()  # type: ignore[arg-type]


def lines(*boxes: tuple[float, ...], polygons: list[Tensor] | None = None) -> Instances:
    return Instances(torch.tensor(boxes), torch.zeros(len(boxes), dtype=torch.int64), polygons=polygons)


def quad(*corners: tuple[float, float]) -> Tensor:
    return torch.tensor(corners, dtype=torch.float32)


def strips(*rows: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Boxes and scores of column, top, bottom, score."""
    given = torch.tensor(rows, dtype=torch.float32)
    left = 16 * given[:, 0]
    return torch.stack([left, given[:, 1], left + 16, given[:, 2]], dim=1), given[:, 3]


def test_heights_are_those_of_the_paper_and_of_the_release() -> None:
    assert [round(height) for height in HEIGHTS["paper"]] == [11, 16, 22, 32, 46, 65, 93, 134, 191, 273]
    with torch.device("meta"):
        released: Any = registry.create_model("ctpn_released")
    assert released.heights == HEIGHTS["released"] and released.sides is None
    assert small(heights=[8, 20]).heights == (8.0, 20.0)
    for wrong in ("ports", [], [0]):
        with pytest.raises(InputError, match="heights"):
            small(heights=wrong)
    with pytest.raises(InputError, match="option of line_options 'gaps'"):
        small(line_options={"gaps": 3})


def test_the_rows_are_read_by_a_plain_recurrent_network() -> None:
    """Windows of 3x3, the LSTM's equations step by step both ways, a layer and the heads."""
    model = small(heights=[10, 20, 40])
    images = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        outputs, (x,) = model(images), model.backbone(images)
        padded = nn.functional.pad(x, (1, 1, 1, 1))
        rows = x.shape[2]
        windows = torch.stack(
            [padded[:, :, i : i + rows, j : j + x.shape[3]] for i in range(3) for j in range(3)], dim=2
        )
        steps = windows.flatten(1, 2).permute(0, 2, 3, 1)  # (B, H, W, 9C), channel by channel
        layer: Any = model.rows.recurrent.network
        both = torch.cat([_lstm(layer, steps, ""), _lstm(layer, steps.flip(2), "_reverse").flip(2)], dim=-1)
        mix: Any = model.rows.mix
        hidden = torch.relu(both @ mix.weight.T + mix.bias)
        logits = hidden @ model.text.weight.T + model.text.bias
    assert outputs["logits"].shape == (2, rows * x.shape[3] * 3, 2)
    torch.testing.assert_close(outputs["logits"].flatten(1), logits.flatten(1), rtol=1e-4, atol=1e-5)
    assert outputs["anchors"][:3].tolist() == [[0, 3, 16, 13], [0, -2, 16, 18], [0, -12, 16, 28]]
    assert outputs["anchors"][3].tolist() == [16, 3, 32, 13]


def _lstm(layer: nn.LSTM, steps: Tensor, suffix: str) -> Tensor:
    to_gates, of_gates, *biases = (
        getattr(layer, f"{name}_l0{suffix}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    hidden = cell = steps.new_zeros(*steps.shape[:2], layer.hidden_size)
    found = []
    for step in steps.unbind(2):
        i, f, g, o = (step @ to_gates.T + hidden @ of_gates.T + sum(biases)).chunk(4, dim=-1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * cell.tanh()
        found.append(hidden)
    return torch.stack(found, dim=2)


def test_lines_are_cut_at_the_borders_of_columns() -> None:
    # From 10 to 60: 6 of column 0, all of 1 and 2, 12 of 3. From 100 to 106: column 6. From 30 to 34: the middle is 32.
    found = cut_lines(lines((10, 5, 60, 20), (100, 0, 106, 9), (30, 1, 34, 4), (9, 9, 9, 20)), 16, 10, 0.5)
    assert list(zip(found.lines.tolist(), found.columns.tolist(), strict=True)) == [
        (0, 1),
        (0, 2),
        (0, 3),
        (1, 6),
        (2, 2),
    ]
    assert found.tops.tolist() == [5, 5, 5, 0, 1] and found.bottoms.tolist() == [20, 20, 20, 9, 4]
    assert cut_lines(lines((10, 5, 60, 20)), 16, 10, 0.1).columns.tolist() == [0, 1, 2, 3]
    assert cut_lines(lines((-40, 5, 400, 20)), 16, 3, 0.5).columns.tolist() == [0, 1, 2]


def test_slanted_lines_have_slices_at_their_own_heights() -> None:
    # Falls by 1 pixel in 4: a column of 16 falls by 4, and a line 10 high has slices 14 high.
    outline = quad((0, 0), (64, 16), (64, 26), (0, 10))
    found = cut_lines(lines((0, 0, 64, 26), polygons=[outline]), 16, 10)
    assert found.columns.tolist() == [0, 1, 2, 3]
    assert found.tops.tolist() == [0, 4, 8, 12] and found.bottoms.tolist() == [14, 18, 22, 26]
    cut = cut_lines(lines((0, 6, 64, 20), polygons=[outline]), 16, 10)  # at the border of an image
    assert cut.tops.tolist() == [6, 6, 8, 12] and cut.bottoms.tolist() == [14, 18, 20, 20]
    upright = cut_lines(lines((3, 4, 50, 14), polygons=[quad((3, 4), (50, 4), (50, 14), (3, 14))]), 16, 10)
    assert upright.tops.tolist() == [4] * 3 and upright.bottoms.tolist() == [14] * 3


def test_matches_are_those_of_boxes_of_a_column() -> None:
    """Against the matching of whole boxes: slices as boxes, of which only those of one column overlap."""
    model, generator = small(heights=[8, 12, 20, 33]), torch.Generator().manual_seed(3)
    with torch.no_grad():
        outputs = model(torch.zeros(1, 3, 128, 160))
    anchors, columns = outputs["anchors"], 10
    corners = torch.rand(12, 2, generator=generator) * torch.tensor([120.0, 110])
    sides = torch.rand(12, 2, generator=generator) * torch.tensor([70.0, 30]) + 4
    truth = Instances(torch.cat([corners, corners + sides], dim=1))
    slices, ignored = cut_lines(truth[:9], 16, columns), cut_lines(truth[9:], 16, columns)
    column = anchors.view(-1, columns, 4, 4)[:, 0]
    found = match_slices(slices, ignored, column[..., 1], column[..., 3], columns, positive=0.7, negative=0.5)
    as_boxes = [
        torch.stack([16.0 * one.columns, one.tops, 16.0 * one.columns + 16, one.bottoms], dim=1)
        for one in (slices, ignored)
    ]
    wanted = match_anchors(as_boxes[0], anchors, positive=0.7, negative=0.5, rescue="ties", ignored=as_boxes[1])
    assert torch.equal(found.matched, wanted) and {-2, -1} < set(wanted.tolist())
    torch.testing.assert_close(found.overlap, pairwise_iou(as_boxes[0], anchors).amax(dim=0))


def taught(model: CTPN, outputs: Outputs, truth: Instances, score: float = 9.0) -> Outputs:
    """Outputs of a network that says what it was taught, and background elsewhere."""
    (one,) = model._match(outputs, [truth])
    positive = one.matches.matched >= 0
    anchors, own = outputs["anchors"], one.matches.nearest.clamp(min=0)
    tops, bottoms, ends = one.slices.tops[own], one.slices.bottoms[own], one.ends[one.slices.lines][own]
    height, middle = anchors[:, 3] - anchors[:, 1], (anchors[:, 1] + anchors[:, 3]) / 2
    vertical = torch.stack([((tops + bottoms) / 2 - middle) / height, ((bottoms - tops) / height).log()], dim=-1)
    away = ends - ((anchors[:, 0] + anchors[:, 2]) / 2)[:, None]
    nearest = away.gather(1, away.abs().argmin(dim=1, keepdim=True))[:, 0]
    logits = torch.where(positive, score, -score)
    found = {"logits": torch.stack([-logits, logits], dim=-1)[None], "vertical": vertical[None]}
    return {**outputs, **found, "sides": nearest[None] / 16}


def test_what_was_taught_is_decoded_to_the_truth_and_costs_nothing() -> None:
    model = small()
    with torch.no_grad():
        outputs = model(torch.zeros(1, 3, 160, 320))
    truth = lines((21, 20, 133, 45), (200, 22, 302, 44), (40, 70, 47, 86), (3, 100, 310, 140))
    said = taught(model, outputs, truth)
    losses = model.loss(said, [truth])
    assert all(float(value) < 1e-4 for value in losses.values()) and set(losses) == {"text", "vertical", "sides"}
    (found,) = model.decode(said)
    order = found.boxes[:, 1].argsort()
    assert len(found) == 4 and found.polygons is not None and found.labels is not None
    best = pairwise_iou(truth.boxes, found.boxes).amax(dim=1)
    assert best[[0, 1, 3]].min() > 0.999  # the third is within one column, of which only the nearer end is said
    for place, line in zip(order.tolist(), sorted(truth.boxes.tolist(), key=lambda box: box[1]), strict=True):
        if line[0] != 40:
            x1, y1, x2, y2 = line
            torch.testing.assert_close(found.polygons[place], quad((x1, y1), (x2, y1), (x2, y2), (x1, y2)))
    # Without refinement an end is up to half a column away.
    (rough,) = model.decode(said, rules=LineRules(refined=False))
    assert rough.boxes[:, [0, 2]].remainder(16).eq(0).all()
    assert pairwise_iou(truth.boxes, rough.boxes).amax(dim=1)[[0, 1]].max() < 0.95
    dense = model.dense(said)
    assert tuple(dense) == model.dense_names
    texts = {"selection": asdict(model.selection), "decoding": model.decoding()}
    preprocessing = Preprocessing(size=(160, 320), channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    exported = DetectorProgram(lambda images: dense, texts, preprocessing, 1)
    assert exported.takes_polygons and exported.decoding() == model.decoding()
    assert torch.equal(exported.decode(dense)[0].boxes, found.boxes)
    assert torch.equal(exported.decode(dense, **unrefined_rules(exported))[0].boxes, rough.boxes)
    with pytest.raises(InputError, match="unrefined is of ctpn"):
        unrefined_rules(DetectorProgram(lambda images: dense, {**texts, "decoding": {}}, preprocessing, 1))


def test_losses_by_hand() -> None:
    """One line in one column, one anchor: eq. 3 to 6 with smooth L1 that is linear beyond beta."""
    model = small(heights=[16], sampled=2, beta=1.0)
    with torch.no_grad():
        outputs = model(torch.zeros(1, 3, 64, 64))
    count = len(outputs["anchors"])
    zeros: Outputs = {**outputs, "logits": torch.zeros(1, count, 2), "vertical": torch.zeros(1, count, 2)}
    zeros["sides"] = torch.zeros(1, count)
    losses = model.loss(zeros, [lines((16, 18, 28, 34))])  # column 1; the anchor of row 1 is 16 to 32
    assert float(losses["text"]) == pytest.approx(math.log(2))
    assert float(losses["vertical"]) == pytest.approx(0.5 * (2 / 16) ** 2)  # centre 26 for 24, the same height
    assert float(losses["sides"]) == pytest.approx(2.0 * 0.5 * (4 / 16) ** 2)  # 28 is 4 from the middle, 16 is 8
    assert float(model.loss(zeros, [lines((16, 18, 28, 34))[:0]])["vertical"]) == 0
    unlabelled = Instances(torch.tensor([(16.0, 18, 28, 34)]))  # as to any detector, something to find
    assert {name: float(value) for name, value in model.loss(zeros, [unlabelled]).items()} == {
        name: float(value) for name, value in losses.items()
    }
    # IoU 9/16: above 0.5 and below 0.7, and another anchor is no better; matched as the best of its slice.
    (one,) = model.assign(zeros, [lines((16, 20, 32, 29))])
    assert (one.matched >= 0).sum() == 1


def test_neighbours_must_agree() -> None:
    rules = LineRules()
    boxes, scores = strips(
        (0, 0, 20, 0.9), (1, 1, 21, 0.9), (4, 0, 20, 0.9),  # 3 columns on: within 50 pixels
        (8, 0, 20, 0.9),  # 4 columns on: too far
        (1, 40, 60, 0.8), (2, 41, 60, 0.9), (2, 55, 75, 0.95), (3, 40, 90, 0.9),  # other heights, too low, too high
    )  # fmt: skip
    order = boxes[:, 0].argsort(stable=True)
    chains = connect((boxes[order, 0] / 16).long(), boxes[order, 1], boxes[order, 3], scores[order], rules)
    of = dict(zip(order.tolist(), chains.tolist(), strict=True))
    assert of[0] == of[1] == of[2] and len({of[0], of[3], of[4], of[6], of[7]}) == 5 and of[4] == of[5]
    none = torch.zeros(0)
    assert not len(connect(none.long(), none, none, none, rules))
    # Two would be the neighbour of one: it has the more certain, and the other is alone.
    twins, certain = strips((0, 0, 20, 0.9), (1, 0, 20, 0.8), (1, 2, 22, 0.9))
    assert connect((twins[:, 0] / 16).long(), twins[:, 1], twins[:, 3], certain, rules).tolist() == [0, 1, 0]


def test_lines_are_fitted_to_their_strips() -> None:
    boxes, scores = strips((1, 10, 30, 0.8), (2, 14, 34, 0.9), (3, 18, 38, 1.0))
    chains = torch.zeros(3, dtype=torch.int64)
    (one,), certain = fit_quads(chains, boxes, scores, None, LineRules())
    # Falls by 1 in 4: at the middles 24, 40, 56 as they say, at 16 and 64 half a column further.
    torch.testing.assert_close(one, quad((16, 8), (64, 20), (64, 40), (16, 28)))
    assert float(certain) == pytest.approx(0.9)
    (level,), _ = fit_quads(chains, boxes, scores, None, LineRules(upright=True))
    torch.testing.assert_close(level, quad((16, 14), (64, 14), (64, 34), (16, 34)))
    # Refined, but by no more than a column from the middle of a strip.
    (ends,), _ = fit_quads(chains, boxes, scores, torch.tensor([20.0, 999, 999]), LineRules())
    assert ends[:, 0].tolist() == [20, 72, 72, 20]
    assert not len(fit_quads(chains, boxes, scores, None, LineRules(least=4))[0])


def test_strips_below_the_threshold_and_doubles_make_no_lines() -> None:
    boxes, scores = strips((0, 0, 20, 0.9), (1, 0, 20, 0.69), (0, 1, 21, 0.8), (0, 15, 35, 0.75))
    found = find_lines(boxes, scores, None, LineRules(), MANY, (100, 100))
    assert found.boxes.tolist() == [[0, 0, 16, 20], [0, 15, 16, 35]]  # 0.15 of both is shared by the two heights
    assert found.scores is not None and found.scores.tolist() == pytest.approx([0.9, 0.75])
    none = find_lines(boxes, 0 * scores, None, LineRules(), MANY, (100, 100))
    assert none.boxes.shape == (0, 4) and none.polygons == []
    assert len(find_lines(boxes, scores, None, LineRules(), Selection(score_threshold=0.8), (100, 100))) == 1


def test_the_decoding_of_an_exported_file_is_plain() -> None:
    model = small(gap=33, side_refinement=False)
    preprocessing = Preprocessing(size=(64, 96), channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert model.dense_names == ("boxes", "scores")
    assert decoding_of(model, preprocessing)["lines"]["gap"] == 33
    assert "sides" not in model(torch.zeros(1, 3, 64, 96))


def test_tiles_drawings_and_cocos_json_have_polygons() -> None:
    from opsin.detect.answers import DetectAnswer
    from opsin.detect.drawing import annotate
    from opsin.detect.merge import merge_instances
    from opsin.engine.tiles import Place

    line = {"label": "text", "class_id": 0, "score": 0.9, "box": [10.0, 10.0, 40.0, 24.0]}
    line["polygon"] = [[10.0, 10.0], [40.0, 14.0], [40.0, 24.0], [10.0, 20.0]]
    places = [Place(0, 0, 64, 64), Place(0, 100, 64, 64)]  # top, left
    found = merge_instances([[], [line]], places, (64, 164), iou_threshold=0.5)
    assert found[0]["polygon"] == [[110, 10], [140, 14], [140, 24], [110, 20]]
    drawn = annotate(torch.zeros(3, 64, 640, dtype=torch.uint8), {"instances": [line]}, ["text"])
    assert drawn.getpixel((25, 12)) != (0, 0, 0) and drawn.getpixel((25, 10)) == (0, 0, 0)  # along the slanted top
    answer = DetectAnswer({"instances": [line]})
    assert answer.polygons is not None and answer.polygons[0].shape == (4, 2)


def test_polygons_go_to_the_input_and_back_together() -> None:
    given = [torch.rand(count, 2, generator=torch.Generator().manual_seed(count)) * 40 for count in (4, 7, 3)]
    boxes = torch.tensor([[0.0, 0, 40, 40]] * 3)
    batch: Any = {"image": torch.zeros(1, 3, 48, 96), "instances": [Instances(boxes, polygons=given)]}
    (found,) = batch_targets(batch, torch.device("cpu"), (96, 288))
    assert found.polygons is not None
    for one, own in zip(found.polygons, given, strict=True):
        torch.testing.assert_close(one, own * torch.tensor([3.0, 2.0]))
    preprocessing = Preprocessing(size=(96, 288), channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    for one, own in zip(return_polygons(found.polygons, preprocessing, (48, 96)) or (), given, strict=True):
        torch.testing.assert_close(one, own)
    assert return_polygons([], preprocessing, (48, 96)) == [] and return_polygons(None, preprocessing, (48, 96)) is None
