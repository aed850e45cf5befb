"""A run evaluated as if its network had few bits; see `opsin.nn.quantization`."""

from __future__ import annotations

from pathlib import Path

from opsin import data, errors
from opsin.engine.checkpoint import read_model
from opsin.engine.evaluate import evaluate_split
from opsin.engine.evaluator import create_evaluator
from opsin.engine.membership import divide_as_trained
from opsin.engine.predict import load
from opsin.engine.recipe_data import open_data
from opsin.nn.quantization import quantized
from opsin.nn.surgery import fold_batch_norm

_BATCHES = 8  # of training data, by which the ranges are found


def evaluate_quantized(run: str | Path, split: str, bits: int = 8) -> dict[str, float]:
    """The metrics of a run on a split with weights and outputs of layers rounded to so many bits.

    Batch norms are put into the convolutions before them first, as what runs on integers has them. The ranges are those
    of eight batches of training data. Empty where the data has no such split.
    """
    predictor, saved = load(run), read_model(run)
    splits = divide_as_trained(saved.recipe, open_data(saved.recipe), saved.members, errors.say)
    if split not in splits:
        return {}
    if (prepared := predictor.preprocessing) is not None:
        size = (prepared.channels, *prepared.size)
        predictor.model = fold_batch_norm(predictor.model, size).model.to(predictor.device)

    def calibrate() -> None:
        batch_size = saved.recipe.train.batch_size
        ready = predictor.prepare_split(splits["train"])
        loader = data.create_loader(ready, predictor.preprocessing, batch_size=batch_size)
        for _, batch in zip(range(_BATCHES), loader, strict=False):
            predictor.outputs(batch)

    predictor.model.eval()
    with quantized(predictor.model, calibrate, bits):
        return dict(evaluate_split(create_evaluator(predictor), splits[split]).result.metrics)
