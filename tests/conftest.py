"""For every test: no network, one thread a process, no display, and real data only where there is some."""

from __future__ import annotations

import gc
import os
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_OFFLINE = str(Path(__file__).parent / "offline")

# Before anything imports torch or matplotlib; the processes that tests start inherit all of it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["MPLBACKEND"] = "Agg"
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # tests import ONNX Runtime, too
os.environ["HF_HUB_OFFLINE"] = "1"  # the reference models of timm are built with random weights
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [_OFFLINE, os.environ.get("PYTHONPATH")]))
runpy.run_path(f"{_OFFLINE}/sitecustomize.py")  # this process began without it


def pytest_collection_finish() -> None:
    """What was imported and collected is no garbage: it is not looked through again with every tenth test."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def trainings_are_short(request: pytest.FixtureRequest) -> Iterator[None]:
    """What takes longer than a tiny training is left out of it where no mark asks for it.

    The five charts of a report are drawn, but not rendered; images are read without a process that reads ahead, which
    is forked from one of gigabytes.
    """
    with pytest.MonkeyPatch.context() as patch:
        if not request.node.get_closest_marker("rendered"):
            patch.setattr("opsin.engine.charts.svg", _drawn_only)
        if not request.node.get_closest_marker("reads_ahead"):
            patch.setattr("opsin.engine.automatic._MOST", 0)
        yield


def _drawn_only(draw: Callable[[Any], None], width: float = 6.0, height: float = 3.4) -> bytes:
    from matplotlib.figure import Figure

    draw(Figure(figsize=(width, height), layout="constrained"))
    return b'<svg xmlns="http://www.w3.org/2000/svg"></svg>'


def pytest_sessionfinish() -> None:
    gc.unfreeze()  # or libraries complain of what they find alive at the end


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("OPSIN_DATA"):
        return
    skip = pytest.mark.skip(reason="OPSIN_DATA is not set: no real data sets here")
    for item in items:
        if item.get_closest_marker("real_data"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets; for tests marked `real_data`."""
    folder = os.environ.get("OPSIN_DATA")
    if not folder:
        pytest.skip("OPSIN_DATA is not set: no real data sets here")
    path = Path(folder)
    assert path.is_dir(), f"OPSIN_DATA is {folder}, which is not a folder"
    return path


@pytest.fixture(scope="module", autouse=True)
def caches_end_with_their_file(request: pytest.FixtureRequest) -> Iterator[None]:
    """The networks that the tests of a file share are let go after it: all of them together take gigabytes."""
    yield
    for value in vars(request.module).values():
        clear = getattr(value, "cache_clear", None)
        if clear is not None and value.__module__ == request.module.__name__:
            clear()
