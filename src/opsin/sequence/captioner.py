"""Show, Attend and Tell: Neural Image Caption Generation with Visual Attention. Xu et al. 2015, arXiv:1502.03044.

The idea: an image is described as a sentence is translated. A convolutional network gives a vector for each place of
the image in the place of each word of a source, and before each word that it writes the decoder looks for the places
that matter.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin.backbones.extraction import create_extractor
from opsin.checks import check_count, check_probability
from opsin.errors import InputError
from opsin.nn.attention import AdditiveAttention, sinusoidal_encoding
from opsin.nn.conv import ConvNormActivation
from opsin.nn.recurrent import Cell
from opsin.ops.generation import State
from opsin.registry import register
from opsin.sequence.encoder_decoder import EncoderDecoder, Outputs, shift
from opsin.sequence.tokens import SPECIALS

STRIDE = 16  # pixels of an image that a place of the memory stands for, in each direction


class PlainConvolutions(nn.Sequential):
    """(B, in_channels, H, W) -> (B, 4 x width, about H / 16, about W / 16): four 3x3 convolutions that halve."""

    def __init__(self, in_channels: int, width: int) -> None:
        widths = [in_channels, width, 2 * width, 4 * width, 4 * width]
        pairs = itertools.pairwise(widths)
        super().__init__(*(ConvNormActivation(before, after, 3, 2) for before, after in pairs))
        self.out_channels = widths[-1]


class Captioner(EncoderDecoder):
    """Images (B, in_channels, H, W) in [0, 1] -> outputs, of which `decode` writes a text: "soft" attention.

    width: of the convolutions; backbone: name of a classification network in their place, of which the stage of stride
    16 is taken, as the paper takes VGG's, backbone_options: its own. hidden, embedding: of the decoder. dropout: of
    embeddings and before the scores. smoothing: of labels.

    The LSTM begins with two linear layers of the mean of all places. At each step its state h looks at them, the
    context is gated by sigmoid(w h), both move it on, and a word is scored from the word before, the state and the
    context (the paper's section 3.1.2 and equation 7). As convolutions know little of where they are, sines and cosines
    of row and column are added to the places; the paper has none. Its "doubly stochastic" term, which asks that all
    places are looked at equally, is left out.

    Outputs are memory (B, places, C), row by row, seen (B, places), and state0 and state1 (B, hidden).
    """

    answers_with = "caption"

    def __init__(
        self,
        *,
        target_vocabulary: int = 10_000,
        in_channels: int = 3,
        width: int = 32,
        backbone: str | None = None,
        backbone_options: dict[str, Any] | None = None,
        hidden: int = 256,
        embedding: int = 128,
        dropout: float = 0.0,
        smoothing: float = 0.0,
    ) -> None:
        super().__init__(SPECIALS + 1, target_vocabulary, smoothing)  # it reads no tokens
        self.in_channels = check_count("in_channels", in_channels)
        check_count("hidden", hidden)
        check_count("embedding", embedding)
        self.encoder: nn.Module
        if backbone is None:
            if backbone_options:
                raise InputError("backbone_options are of a backbone; name it, as backbone='resnet18'")
            self.encoder = PlainConvolutions(in_channels, check_count("width", width))
            channels = self.encoder.out_channels
        else:
            self.encoder = create_extractor(backbone, (STRIDE,), in_channels=in_channels, **(backbone_options or {}))
            channels = self.encoder.channels[0]
        self.dropout = nn.Dropout(check_probability("dropout", dropout))
        self.embed_target = nn.Embedding(target_vocabulary, embedding, padding_idx=0)
        self.first_state, self.first_cell = nn.Linear(channels, hidden), nn.Linear(channels, hidden)
        self.attend = AdditiveAttention(hidden, channels, hidden)
        self.gate = nn.Linear(hidden, 1)
        self.decoder = Cell("lstm", embedding + channels, hidden)
        self.of_state, self.of_context = nn.Linear(hidden, embedding), nn.Linear(channels, embedding, bias=False)
        self.predict = nn.Linear(embedding, target_vocabulary)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the places of an image."""
        return -(-height // STRIDE), -(-width // STRIDE)

    def forward(self, source: Tensor) -> Outputs:
        if source.ndim != 4 or source.shape[1] != self.in_channels or not source.is_floating_point():
            shape = tuple(source.shape)
            raise InputError(f"a captioner takes images (B, {self.in_channels}, H, W) in [0, 1], got {shape}")
        maps = self.encoder(source)
        x = maps[0] if isinstance(maps, list) else maps
        rows, columns = x.shape[2:]
        half = x.shape[1] // 4 * 2  # an even number of channels says the row, as many others the column
        down, across = (sinusoidal_encoding(count, half).to(x) for count in (rows, columns))
        places = torch.cat([down[:, None].expand(-1, columns, -1), across[None].expand(rows, -1, -1)], dim=2)
        places = F.pad(places.flatten(0, 1), (0, x.shape[1] - 2 * half))
        memory = x.flatten(2).transpose(1, 2) + places
        mean = memory.mean(dim=1)
        state = {"state0": torch.tanh(self.first_state(mean)), "state1": torch.tanh(self.first_cell(mean))}
        return {"memory": memory, "seen": memory.new_ones(memory.shape[:2], dtype=torch.bool)} | state

    def start(self, outputs: Outputs) -> tuple[Outputs, State]:
        memory = outputs["memory"]
        return {"memory": memory, "keys": self.attend.project(memory)}, (outputs["state0"], outputs["state1"])

    def step(self, tokens: Tensor, state: State, fixed: Outputs) -> tuple[Tensor, State]:
        vector, state, _ = self._advance(tokens, state, fixed)
        return self.predict(self.dropout(vector)), state

    def _advance(self, tokens: Tensor, state: State, fixed: Outputs) -> tuple[Tensor, State, Tensor]:
        """What is scored, (B, embedding), the next state, and where it looked, (B, places)."""
        y = self.dropout(self.embed_target(tokens))
        context, weights = self.attend.attend(state[0][:, None], fixed["keys"], fixed["memory"])
        context = context[:, 0] * self.gate(state[0]).sigmoid()
        state = self.decoder(torch.cat([y, context], dim=1), state)
        return y + self.of_state(state[0]) + self.of_context(context), state, weights[:, 0]

    def _read(self, outputs: Outputs, previous: Tensor) -> tuple[Tensor, Tensor]:
        fixed, state = self.start(outputs)
        vectors, looks = list[Tensor](), list[Tensor]()
        for tokens in previous.unbind(dim=1):
            vector, state, look = self._advance(tokens, state, fixed)
            vectors.append(vector)
            looks.append(look)
        return torch.stack(vectors, dim=1), torch.stack(looks, dim=1)

    def teach(self, outputs: Outputs, previous: Tensor) -> Tensor:
        return self.predict(self.dropout(self._read(outputs, previous)[0]))

    def attention(self, outputs: Outputs, tokens: Tensor) -> Tensor | None:
        """How much each word of a text and its end looked at each place, (B, L + 1, places)."""
        return self._read(outputs, shift(tokens)[0])[1]

    def learned_parts(self) -> list[nn.Module]:
        """What an earlier training can have taught."""
        return [self.encoder]

    def example(self, batch: int, size: Any = None) -> Tensor:
        """Noise of 64x64 pixels."""
        noise = torch.rand(batch, self.in_channels, 64, 64, generator=torch.Generator().manual_seed(0))
        return noise.to(self.predict.weight.dtype)


@register("captioner", task="sequence", network=Captioner)
def captioner(**options: Any) -> Captioner:
    return Captioner(**options)
