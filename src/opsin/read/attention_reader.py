"""Attention readers: What Is Wrong With Scene Text Recognition Model Comparisons? Dataset and Model Analysis.

Baek et al. 2019, arXiv:1904.01906. The idea: every reader of words is four stages, and the best of 24 combinations is
TRBA: a thin-plate spline straightens the text (T), a ResNet looks at it (R), LSTMs read its columns in both directions
(B), and a decoder writes one character after another, each time looking at the columns that matter for the next (A).

The ResNet is that of Cheng et al. 2017 (FAN, arXiv:1709.02054), the attention that of Bahdanau et al. 2015
(arXiv:1409.0473) with the previous character as a one-hot vector. Its classes are a start, an end, and the characters.
`rectify`, `backbone` and `recurrent_layers` change the first three stages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.checks import check_count
from opsin.errors import InputError
from opsin.losses.terms import full_precision
from opsin.nn.attention import AdditiveAttention
from opsin.nn.capabilities import ClassRows
from opsin.nn.conv import ConvNormActivation
from opsin.nn.recurrent import BidirectionalLSTM, Cell
from opsin.read.crnn import create_columns, refuse_without_backbone
from opsin.read.greedy import read_until_end
from opsin.read.recognizer import Outputs, Reading, Recognizer, Size
from opsin.read.thin_plate_spline import ThinPlateSplineRectifier
from opsin.registry import Published, register

START, END = 0, 1  # among the classes; a character's is its label and 2
_IGNORED = -1


class ResidualBlock(nn.Module):
    """relu(x + two 3x3 convolutions of x), with a 1x1 convolution on the way past where channels change."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ConvNormActivation(in_channels, out_channels, 3),
            ConvNormActivation(out_channels, out_channels, 3, activation=None),
        )
        same = in_channels == out_channels
        self.past = nn.Identity() if same else ConvNormActivation(in_channels, out_channels, 1, activation=None)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.past(x))


class ResidualColumns(nn.Sequential):
    """(B, in_channels, 32, W) -> (B, 8 x width, 1, W // 4 + 1): FAN's 29 convolutions. width: 64 as published."""

    def __init__(self, in_channels: int, width: int) -> None:
        layers: list[nn.Module] = [
            ConvNormActivation(in_channels, width // 2, 3), ConvNormActivation(width // 2, width, 3)
        ]  # fmt: skip
        poolings = (nn.MaxPool2d(2), nn.MaxPool2d(2), nn.MaxPool2d(2, (2, 1), (0, 1)), None)
        before = width
        for blocks, times, pooling in zip((1, 2, 5, 3), (2, 4, 8, 8), poolings, strict=True):
            layers += [] if pooling is None else [pooling]
            after = times * width
            for _ in range(blocks):
                layers.append(ResidualBlock(before, after))
                before = after
            if pooling is not None:
                layers.append(ConvNormActivation(after, after, 3))
        layers.append(ConvNormActivation(before, before, 2, (2, 1), border=(0, 1)))
        layers.append(ConvNormActivation(before, before, 2, 1, border=0))
        super().__init__(*layers)
        self.out_channels = before


class AttentionDecoder(nn.Module):
    """Columns (B, T, in_channels) -> scores of the next class, one step after another.

    At each step the state asks every column how much it matters, e = v tanh(W h_column + U state + b); the columns'
    mean by softmax(e), with the previous class, moves an LSTM on, whose output is scored.
    """

    def __init__(self, in_channels: int, hidden: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.attend = AdditiveAttention(hidden, in_channels, hidden, bias=True)
        self.cell = Cell("lstm", in_channels + num_classes, hidden)
        self.predict = nn.Linear(hidden, num_classes)

    def teach(self, columns: Tensor, previous: Tensor) -> Tensor:
        """Logits (B, L, K) after each of the given classes, (B, L) int64: teacher forcing."""
        return self._run(columns, previous.shape[1], previous)[0]

    def write(self, columns: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Logits (B, steps, K), each after the most probable class of the one before; where it looked, (B, steps, T).

        All steps are done, whatever ends before: the same program for every text.
        """
        return self._run(columns, steps, None)

    def _run(self, columns: Tensor, steps: int, given: Tensor | None) -> tuple[Tensor, Tensor]:
        keys = self.attend.project(columns)
        state = self.cell.initial_state(columns[:, 0])
        previous = torch.full((columns.shape[0],), START, dtype=torch.int64, device=columns.device)
        logits, looks = [], []
        for step in range(steps):
            if given is not None:
                previous = given[:, step]
            context, look = self.attend.attend(state[0][:, None], keys, columns)  # (B, 1, in_channels), (B, 1, T)
            one_hot = F.one_hot(previous, self.num_classes).to(columns.dtype)
            state = self.cell(torch.cat([context[:, 0], one_hot], dim=1), state)
            logits.append(self.predict(state[0]))
            looks.append(look[:, 0])
            previous = logits[-1].argmax(dim=1)
        return torch.stack(logits, dim=1), torch.stack(looks, dim=1)


class AttentionReader(Recognizer):
    """TRBA, and what is left of it without some of its stages.

    max_length: of a text, in characters; a longer one cannot be learned or read. hidden: of LSTMs and decoder. width:
    of the ResNet. rectify: a thin-plate spline straightens the text first; size: that it makes of it, 32 high.
    fiducials: its points. recurrent_layers: LSTMs over the columns. backbone: name of a classification network in the
    ResNet's place, backbone_options: its own, backbone_weights: published ones.

    Outputs are {"columns": (B, T, hidden)}: what the decoder looks at.
    """

    specials = 2
    end = END
    class_layers = ("decoder",)

    def __init__(
        self,
        *,
        num_classes: int = 38,
        in_channels: int = 1,
        max_length: int = 25,
        hidden: int = 256,
        width: int = 64,
        rectify: bool = True,
        size: tuple[int, int] = (32, 100),
        fiducials: int = 20,
        recurrent_layers: int = 2,
        backbone: str | None = None,
        backbone_options: Mapping[str, Any] | None = None,
        backbone_weights: str | None = None,
    ) -> None:
        super().__init__(check_count("num_classes", num_classes, least=3), in_channels)
        self.max_length = check_count("max_length", max_length)
        check_count("hidden", hidden)
        check_count("width", width, least=2)
        check_count("recurrent_layers", recurrent_layers, least=0)
        self.rectifier = ThinPlateSplineRectifier(in_channels, (size[0], size[1]), fiducials) if rectify else None
        if backbone is None:
            refuse_without_backbone(backbone_options=backbone_options, backbone_weights=backbone_weights)
            columns: Any = ResidualColumns(in_channels, width)
            least: Size = (32, 4)
        else:
            columns = create_columns(backbone, in_channels, backbone_weights, backbone_options or {})
            least = (max(columns.backbone.min_size, 32), max(columns.backbone.min_size, 4))
        if rectify and (size[0] < least[0] or size[1] < least[1]):
            raise InputError(f"size={size} is less than what the columns are made of, {least[0]}x{least[1]}; raise it")
        smallest = ThinPlateSplineRectifier.min_size
        self.min_size = (smallest, smallest) if rectify else least
        self.backbone = columns
        before = columns.out_channels
        layers = [BidirectionalLSTM(before if not k else hidden, hidden, hidden) for k in range(recurrent_layers)]
        self.recurrent = nn.Sequential(*layers)
        self.decoder = AttentionDecoder(hidden if layers else before, hidden, num_classes)

    def forward(self, images: Tensor) -> Outputs:
        self.check_images(images)
        if self.rectifier is not None:
            images = self.rectifier(images)
        rows = self.backbone(images).mean(dim=2)  # (B, C, T)
        return {"columns": self.recurrent(rows.transpose(1, 2))}

    def steps(self, size: Size) -> int:
        """How many characters it reads at most, whatever the size. Raises InputError for one that it cannot take."""
        self.check_size(size)
        return self.max_length

    def loss(self, outputs: Outputs, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Cross-entropy of each next character and of the end, the mean of all. A longer text counts for nothing."""
        terms, counts = self._terms(outputs, targets)
        return {"loss": terms.sum() / counts.sum().clamp(min=1)}

    def loss_of_each(self, outputs: Outputs, targets: Mapping[str, Tensor]) -> Tensor:
        """The mean over the characters and the end of each text."""
        terms, counts = self._terms(outputs, targets)
        return terms.sum(dim=1) / counts.clamp(min=1)

    def _terms(self, outputs: Outputs, targets: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Cross-entropy at each step, (B, L + 1), 0 where nothing is wanted; of each text how many are, (B,)."""
        columns = outputs["columns"]
        labels, lengths = (targets[name].to(columns.device) for name in ("labels", "lengths"))
        longest = labels.shape[1]
        places = torch.arange(longest + 1, device=columns.device)
        classes = F.pad(torch.where(labels < 0, 0, labels) + 2, (0, 1))
        wanted = torch.where(places < lengths[:, None], classes, _IGNORED)
        wanted = torch.where(places == lengths[:, None], END, wanted)
        wanted = torch.where(lengths[:, None] > self.max_length, _IGNORED, wanted)[:, : self.max_length + 1]
        previous = F.pad(classes[:, :-1], (1, 0), value=START)[:, : wanted.shape[1]]
        logits = full_precision(self.decoder.teach(columns, previous))
        terms = F.cross_entropy(logits.transpose(1, 2), wanted, ignore_index=_IGNORED, reduction="none")
        return terms, (wanted != _IGNORED).sum(dim=1)

    def probabilities(self, outputs: Outputs) -> Tensor:
        """(B, max_length + 1, K) of the steps that the decoder takes on its own, the last one for the end."""
        return self._written(outputs)[0]

    def read(self, outputs: Outputs) -> tuple[list[Reading], Tensor]:
        """What it writes until the first end. A step is where it looked along the width, in max_length + 1 parts."""
        probabilities, looks = self._written(outputs)
        parts = probabilities.shape[1]
        where = (looks.argmax(dim=2) * parts // looks.shape[2]).tolist()
        written = zip(read_until_end(probabilities, END, self.specials), where, strict=True)
        readings = [Reading(one.labels, one.scores, [row[k] for k in one.steps]) for one, row in written]
        return readings, probabilities

    def attention(self, outputs: Outputs) -> Tensor:
        """How much the decoder looked at each column at each of its steps, (B, max_length + 1, T), sums of 1."""
        return self._written(outputs)[1]

    def _written(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        logits, looks = self.decoder.write(outputs["columns"], self.max_length + 1)
        return full_precision(logits).softmax(dim=2), looks

    def reset_head(self, num_classes: int) -> None:
        """The scores, and what the decoder's LSTM takes of the class before, for other characters."""
        self.num_classes = check_count("num_classes", num_classes, least=3)
        old = self.decoder
        fresh = AttentionDecoder(old.in_channels, old.cell.hidden, num_classes)
        self.decoder = fresh.to(old.predict.weight.device, old.predict.weight.dtype)
        self.decoder.attend = old.attend

    def class_rows(self) -> dict[str, ClassRows]:
        """The rows of the scores: start and end, then the characters."""
        return {f"decoder.predict.{key}": ClassRows(before=2) for key in ("weight", "bias")}

    def learned_parts(self) -> list[nn.Module]:
        parts = [self.rectifier, self.backbone, self.recurrent]
        return [part for part in parts if part is not None]


@register(
    "trba",
    task="read",
    network=AttentionReader,
    published=Published(
        "arXiv:1904.01906",
        2019,
        (1, 32, 100),
        49_555_182,
        metrics={"IIIT5K accuracy": 87.9, "SVT accuracy": 87.5, "IC13 accuracy": 92.3, "IC15 accuracy": 71.8},
        idea="straighten the text, look, read both ways, and write each character after a look at the columns",
        source="counted: the authors' program",
    ),
)
def trba(**options: Any) -> AttentionReader:
    return AttentionReader(**options)
