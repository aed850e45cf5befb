"""Weights of an ONNX file in 16 bits: half as large on disk, and computed with in 32 bits as before."""

from __future__ import annotations

from pathlib import Path

import numpy as np

_LEAST = 64  # values of a tensor from which on it is worth storing in half; shapes and small constants stay


def halve_weights(file: Path) -> None:
    """Store the float32 weights of an ONNX file as float16, each widened by a Cast where it is used."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(file)
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        if values.size < _LEAST or np.abs(values).max(initial=0) > np.finfo(np.float16).max:
            continue
        name, stored = tensor.name, f"{tensor.name}_half"
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), stored))
        casts.append(helper.make_node("Cast", [stored], [name], f"{name}_widened", to=TensorProto.FLOAT))
    for node in reversed(casts):
        model.graph.node.insert(0, node)
    onnx.save(model, file)
