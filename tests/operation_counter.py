"""How many operations a piece of code sends to a device, and where it would wait for one."""

from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class OperationCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what Python sends to a device while a block lasts: a processor takes some 5 microseconds for each, however
    little work it is. Views and allocations are left out. A CUDA graph that is replayed sends nothing.

    `operations`: how often each was called. `waits`: those that would make Python wait for a GPU, in order."""

    FREE = ("aten.empty", "aten.new_empty", "aten.alias", "aten.lift_fresh", "aten._unsafe_view")
    WAITING = ("aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.lift_fresh")

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: Counter[str] = Counter()
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, results = str(func), func._schema.returns
        is_view = any(each.alias_info is not None and not each.alias_info.is_write for each in results)
        if not is_view and not name.startswith(self.FREE):
            self.operations[name] += 1
        by_mask = name.startswith("aten.index.Tensor") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if by_mask or name.startswith(self.WAITING):  # the length of what a mask chooses is to be asked for
            self.waits.append(name)
        return func(*args, **(kwargs or {}))
