"""Training steps of our Transformer and our LSTM over those of torch's own layers.

    python benchmarks/sequences.py [--steps 30] [--threads 1] [--device cpu] [--json]

transformer: two and two layers of 128 features, 16 texts of 24 tokens, 1,000 tokens to choose from; theirs are
torch.nn.Transformer's layers without final norms, with the same embeddings, positions and scores around them. padded:
the same with texts of 8 to 24 tokens, so that both look past padding. lstm: one layer of 128, 16 sequences of 24 steps,
through `opsin.nn.recurrent.Recurrent` and through torch.nn.LSTM. All steps are forward, loss, backward and SGD on the
same weights; dropout is 0.

The two take turns, step by step in one process, so that a busy moment hits both alike, and on the CPU the processor's
own time is counted, which others' work does not lengthen; the figure is the median of the ratios of neighbouring steps.
Target: at most 1.02 each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opsin import registry
from opsin.nn.attention import sinusoidal_encoding
from opsin.nn.recurrent import Recurrent
from opsin.sequence.encoder_decoder import shift, token_losses
from opsin.sequence.tokens import PAD, SPECIALS

FEATURES, HEADS, HIDDEN, LAYERS, VOCABULARY, BATCH, LENGTH, WARMUP = 128, 4, 512, 2, 1000, 16, 24, 5
Step = Callable[[], Any]


class Theirs(nn.Module):
    """torch's layers as a Transformer for texts."""

    def __init__(self) -> None:
        super().__init__()
        options: Any = {"dropout": 0.0, "batch_first": True}
        encoder = nn.TransformerEncoderLayer(FEATURES, HEADS, HIDDEN, **options)
        decoder = nn.TransformerDecoderLayer(FEATURES, HEADS, HIDDEN, **options)
        self.embed = nn.Embedding(VOCABULARY, FEATURES, padding_idx=PAD)
        self.encoder = nn.TransformerEncoder(encoder, LAYERS, enable_nested_tensor=False)
        self.decoder = nn.TransformerDecoder(decoder, LAYERS)
        self.register_buffer("places", sinusoidal_encoding(5000, FEATURES))

    def forward(self, source: Tensor, previous: Tensor) -> Tensor:
        padded = bool((source == PAD).any())
        hidden, past = (source == PAD, previous == PAD) if padded else (None, None)
        memory = self.encoder(self._embed(source), src_key_padding_mask=hidden)
        causal = torch.ones(previous.shape[1], previous.shape[1], dtype=torch.bool, device=source.device).triu(1)
        y = self.decoder(
            self._embed(previous), memory, tgt_mask=causal, tgt_is_causal=True, tgt_key_padding_mask=past,
            memory_key_padding_mask=hidden,
        )  # fmt: skip
        return F.linear(y, self.embed.weight)

    def _embed(self, tokens: Tensor) -> Tensor:
        places: Any = self.places
        return self.embed(tokens) * FEATURES**0.5 + places[: tokens.shape[1]]


def training(model: nn.Module, loss: Callable[[], Tensor]) -> Step:
    """A step of SGD."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


def transformers(device: torch.device, padded: bool) -> tuple[Step, Step]:
    """Steps of our Transformer and torch's, on the same texts."""
    generator = torch.Generator().manual_seed(0)
    texts = torch.randint(SPECIALS, VOCABULARY, (2, BATCH, LENGTH), generator=generator)
    if padded:
        lengths = torch.randint(8, LENGTH + 1, (2, BATCH, 1), generator=generator)
        lengths[:, 0] = LENGTH
        texts = texts.masked_fill(torch.arange(LENGTH) >= lengths, PAD)
    source, target = texts.to(device)
    previous, wanted = shift(target)
    if not padded:
        previous, wanted = previous[:, :-1], wanted[:, :-1]
    ours: Any = registry.create_model(
        "transformer", source_vocabulary=VOCABULARY, target_vocabulary=VOCABULARY, features=FEATURES, heads=HEADS,
        hidden=HIDDEN, layers=LAYERS, dropout=0.0, smoothing=0.0,
    ).to(device)  # fmt: skip
    theirs = Theirs().to(device)

    def loss(logits: Tensor) -> Tensor:
        return token_losses(logits, wanted).sum() / (wanted != PAD).sum()

    return (
        training(ours, lambda: loss(ours.teach(ours(source), previous))),
        training(theirs, lambda: loss(theirs(source, previous))),
    )


def lstms(device: torch.device) -> tuple[Step, Step]:
    """Steps of our LSTM layer and torch's, on the same sequences."""
    x = torch.randn(BATCH, LENGTH, FEATURES, generator=torch.Generator().manual_seed(0)).to(device)
    ours, theirs = Recurrent("lstm", FEATURES, FEATURES).to(device), nn.LSTM(FEATURES, FEATURES, batch_first=True)
    theirs = theirs.to(device)
    return (
        training(ours, lambda: ours(x).square().mean()),
        training(theirs, lambda: theirs(x)[0].square().mean()),
    )


def compare(ours: Step, theirs: Step, steps: int, wait: Step) -> dict[str, float]:
    """Medians in milliseconds, and of the ratios of neighbouring steps; who begins takes turns too."""
    clock = time.perf_counter if wait is torch.cuda.synchronize else time.process_time
    times: tuple[list[float], list[float]] = ([], [])
    for k in range(WARMUP + steps):
        for who in (0, 1) if k % 2 else (1, 0):
            wait()
            begun = clock()
            (ours, theirs)[who]()
            wait()
            times[who].append(1000 * (clock() - begun))
    own, other = (found[WARMUP:] for found in times)
    ratios = [a / b for a, b in zip(own, other, strict=True)]
    return {
        "ours_ms": round(statistics.median(own), 3),
        "torch_ms": round(statistics.median(other), 3),
        "ratio": round(statistics.median(ratios), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    device = torch.device(given.device)
    wait: Step = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    pairs = {
        "transformer": transformers(device, padded=False),
        "transformer, padded": transformers(device, padded=True),
        "lstm": lstms(device),
    }
    found = {name: compare(*pair, given.steps, wait) for name, pair in pairs.items()}
    if given.json:
        print(json.dumps(found, indent=2))
        return
    for name, one in found.items():
        print(f"{name:20} ours {one['ours_ms']:8.2f} ms   torch {one['torch_ms']:8.2f} ms   ratio {one['ratio']:.3f}")


if __name__ == "__main__":
    main()
