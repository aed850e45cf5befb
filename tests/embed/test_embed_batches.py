"""Trainings that could teach or tell nothing are refused, with what to change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import opsin
from opsin.errors import InputError, JobError

from .tiny_people import write_people


def train(people: Path, out: Path, **settings: Any) -> None:
    recipe = {
        "task": "embed",
        "model": {"name": "conv4"},
        "data": {"source": str(people), "size": 32},
        "train": {"epochs": 2, "batch_size": 8, "accelerator": "cpu"},
    }
    opsin.train(recipe, out=out, say=lambda line: None, **settings)


def test_a_validation_split_of_strangers_is_refused_before_the_training(tmp_path: Path) -> None:
    people = tmp_path / "people"
    write_people(people / "train", range(6))
    write_people(people / "val", range(20, 26), images=1)
    with pytest.raises(InputError, match="its 6 images are of 6 identities, and two of an identity"):
        train(people, tmp_path / "run")
    assert not list((tmp_path / "run").glob("*.ckpt"))
    write_people(people / "val", range(20, 21), images=2)
    train(people, tmp_path / "run2", overrides={"train.epochs": 1})


def test_batches_without_a_pair_stop_the_training(tmp_path: Path) -> None:
    people = write_people(tmp_path / "people", range(6), images=2)
    alone = {"data.val_fraction": 0, "data.test_fraction": 0, "embed.images_per_identity": None, "train.batch_size": 2}
    with pytest.raises(JobError, match=r"none of the epoch's \d+ batches held two images of an identity"):
        train(people, tmp_path / "run", overrides=alone)
    # a loss with a row for each identity learns of single images
    train(people, tmp_path / "run2", overrides={**alone, "loss.name": "arcface", "train.epochs": 1})


def test_some_batches_without_a_pair_are_said(tmp_path: Path) -> None:
    people = write_people(tmp_path / "people", range(3), images=8)
    alone = {"data.val_fraction": 0, "data.test_fraction": 0, "embed.images_per_identity": None}
    with pytest.warns(UserWarning, match=r"of the first epoch's \d+ batches held no two images"):
        train(people, tmp_path / "run", overrides={**alone, "train.batch_size": 3, "train.epochs": 1})
