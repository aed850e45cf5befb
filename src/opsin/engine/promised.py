"""What a file promises of its network, held against the tensors that it has, before memory is taken for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules import module as registration

from opsin.errors import InputError

_MOST_VALUES = 1 << 28  # of buffers that no file holds, such as anchors; RetinaNet at 4096x4096 has a tenth of it


def check_promise(build: Callable[[], nn.Module], state: Mapping[str, Tensor], name: str) -> None:
    """Build a network without memory, and refuse one that is far larger than its file's tensors.

    Raises InputError. What fits nearly is left to those who load it, who say which tensor differs.
    """
    try:
        with _counting(2 * len(state) + 100, name), torch.device("meta"):
            form = build()
    except NotImplementedError:
        return  # it looks at values while it is built, so that memory is needed to know its size
    except (RuntimeError, OverflowError, RecursionError, MemoryError) as error:
        if "meta" in str(error):
            return
        raise InputError(f"{name} cannot be built as the file has it: {str(error).splitlines()[0]}") from None
    held = {key: tensor for key, tensor in form.state_dict().items() if not key.startswith("criterion.")}
    beside = sum(buffer.numel() for key, buffer in form.named_buffers() if key not in held)
    if beside > _MOST_VALUES:
        raise InputError(
            f"{name} as the file has it computes {beside:,} values beside its weights; the file is damaged"
        )
    for key, tensor in held.items():
        if key in state and tensor.numel() > 2 * state[key].numel() + 1000:
            shapes = f"{tuple(tensor.shape)} by the file's options and {tuple(state[key].shape)} in the file"
            raise InputError(f"{key} of {name} is {shapes}; the file is damaged, or of other options")
    if sum(tensor.numel() for tensor in held.values()) > 2 * sum(t.numel() for t in state.values()) + 1_000_000:
        raise InputError(
            f"{name} by the file's options is more than twice as large as its weights; the file is damaged"
        )


@contextmanager
def _counting(most: int, name: str) -> Iterator[None]:
    """Within it, a network of more than so many parameters is refused while it is built."""
    count = 0

    def register(*_: object) -> None:
        nonlocal count
        count += 1
        if count > most:
            raise InputError(f"{name} by the file's options has more layers than the file has weights; it is damaged")

    handle = registration.register_module_parameter_registration_hook(register)
    try:
        yield
    finally:
        handle.remove()
