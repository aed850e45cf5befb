"""The runtimes of exported files: they report nothing of their use to their makers, and leave signals alone."""

from __future__ import annotations

import os
import sys
from functools import cache
from typing import Any

_REPORTER = "openvino_telemetry"


def import_onnxruntime() -> Any:
    """ONNX Runtime. Its wheels keep events in the user's cache folder and send them, unless it is said before."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    return onnxruntime


def import_openvino() -> Any:
    """OpenVINO. The import alone sends an event where its reporting package is found; without, it has a stand-in."""
    sys.modules.setdefault(_REPORTER, None)  # type: ignore[arg-type]  # as if it were not installed
    try:
        import openvino
    finally:
        if sys.modules[_REPORTER] is None:
            del sys.modules[_REPORTER]
    return openvino


@cache
def openvino_core() -> Any:
    """OpenVINO's Core, one for the process.

    A Core that compiles for the CPU gives its thread another stack for signals, and takes it back when it ends. Of two
    that end in the order in which they began, the second puts back the first one's, which is gone: the next signal,
    Ctrl-C or the end of a process that loads data, is a crash.
    """
    return import_openvino().Core()
