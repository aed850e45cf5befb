"""The best device there is: cuda, then mps, then cpu, for every verb alike."""

from __future__ import annotations

import pytest
import torch

from opsin.engine.devices import accelerator_device, best_device


@pytest.mark.parametrize(
    ("cuda", "mps", "best"), [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_the_best_there_is(cuda: bool, mps: bool, best: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert best_device() == best
    assert best_device("cpu") == "cpu" and best_device("cuda:1") == "cuda:1"
    assert accelerator_device("auto") == accelerator_device("gpu") == torch.device(best)
    assert accelerator_device("cpu") == torch.device("cpu")
    assert accelerator_device("cuda") == torch.device("cuda" if cuda else "cpu")
    assert accelerator_device("mps") == torch.device("mps" if mps else "cpu")
