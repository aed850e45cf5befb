from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
from torch import nn

from opsin.backbones import inception_v4
from opsin.errors import InputError
from opsin.nn.counting import count_parameters


def test_outputs_equal_timm(assert_equal: Callable[..., None]) -> None:
    assert_equal(inception_v4.inception_v4, lambda: timm.create_model("inception_v4"), [(75, 75), (97, 84)])


def test_depths_are_repetitions() -> None:
    with torch.device("meta"):
        full, shorter = inception_v4.inception_v4(), inception_v4.inception_v4(depths=(3, 7, 2))
    removed = count_parameters(full.stages[0][1]) + count_parameters(full.stages[2][1])  # type: ignore[index]
    assert count_parameters(full) - count_parameters(shorter) == removed
    assert [len(list(stage.children())) for stage in full.stages] == [5, 8, 4]


def test_norm_switch() -> None:
    with torch.device("meta"):
        plain = inception_v4.inception_v4(norm=None)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in plain.modules())
    with pytest.raises(InputError, match="unknown norm 'group'"):
        inception_v4.inception_v4(norm="group")
