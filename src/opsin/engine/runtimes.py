"""The runtimes of exported files, imported so that they report nothing of their use to their makers."""

from __future__ import annotations

import os
import sys
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
