"""A GPU that need not be there: tensors without contents that code takes for some on `cuda:0`, in any build.

They are plain tensors on `meta`, with shapes, dtypes and strides. Python is told that they are on the GPU, so that code
takes the ways that it takes there; PyTorch's C++, which would ask a GPU for streams and guards, sees `meta`. What is
made on the GPU, or copied there, comes to `meta`. Where PyTorch does something else on a GPU than on `meta`, it is done
here as on a GPU (`tdsl.runtime.counting.operators`). So what is counted does not depend on the machine. Tensors on the
CPU are as they always are.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tdsl.runtime.counting.operators import FAKES, KERNELS, META, Kernel, aten

GPU = torch.device("cuda", 0)
# What it is asked for where code asks a GPU what it can do: an H100's.
CAPABILITY = (9, 0)
# Addresses have room for a tensor of so many bytes.
LARGEST = 1 << 40
AUTOCAST = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCUDA)

_device_of: Callable[[Tensor], torch.device] = torch._C.TensorBase.device.__get__
_address_of: Callable[[Tensor], int] = torch._C.TensorBase.data_ptr


def on_gpu(value: object) -> bool:
    """Whether it is a tensor on a GPU, there or not."""
    return isinstance(value, Tensor) and value.device.type == "cuda"


class Gpu(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within, `GPU` is a device. A number that is read from it is 1, and a truth value false.

    `inside` while PyTorch computes shapes, which is to see the tensors' own device.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # In this place of its modes PyTorch takes a device without looking for it.
        self._mode_key = torch._C._TorchDispatchModeKey.FAKE
        self.inside = False
        self.storages: dict[int, int] = {}

    def __enter__(self) -> Gpu:
        # `torch.tensor(..., device=GPU)` is to bring its tensor there by an operator.
        self.lifts = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        torch._C._set_only_lift_cpu_tensors(self.lifts)
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def device(self, tensor: Tensor) -> torch.device:
        """Where Python is told that a tensor is."""
        device = _device_of(tensor)
        return GPU if device.type == "meta" and not self.inside else device

    def address(self, tensor: Tensor) -> int:
        """A number that two tensors on the GPU share where they share memory and begin at the same place."""
        if not on_gpu(tensor):
            return _address_of(tensor)
        storage = tensor.untyped_storage()._cdata
        number = self.storages.setdefault(storage, len(self.storages) + 1)
        return number * LARGEST + int(tensor.storage_offset()) * tensor.element_size()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func in FROM_GPU and FROM_GPU[func](args, given):
            return READ[func](args, given)
        if given.get("device") is not None and given["device"].type == "cuda":
            given["device"] = META
        if "pin_memory" in given:
            given["pin_memory"] = False
        self.inside = True
        try:
            with torch._C._ExcludeDispatchKeyGuard(AUTOCAST):
                return FAKES.get(func, func)(*args, **given)
        finally:
            self.inside = False


@contextmanager
def fake_gpu() -> Iterator[Gpu]:
    """Within, `GPU` is a device that tensors can be on; models move there with `.to(GPU)`."""
    gpu = Gpu()
    with ExitStack() as stack:
        stack.enter_context(registered(KERNELS, "AutogradMeta"))
        for owner, name, value in _replacements(gpu):
            stack.enter_context(mock.patch.object(owner, name, value, create=True))
        yield stack.enter_context(gpu)


@contextmanager
def registered(kernels: Mapping[str, Kernel], key: str) -> Iterator[None]:
    """Within, operators of `aten` run these kernels at a dispatch key."""
    library: Any = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there are other kernels in their places
        for name, kernel in kernels.items():
            library.impl(name, kernel, key)
    try:
        yield
    finally:
        library._destroy()


def _replacements(gpu: Gpu) -> Iterator[tuple[Any, str, Any]]:
    """What PyTorch's Python asks of tensors and devices, as it is on a GPU."""
    grouped = torch._C._group_tensors_by_device_and_dtype

    def group(tensors: Any, with_indices: bool = False) -> Any:
        found = grouped(tensors, with_indices)
        return {(GPU if device == META else device, dtype): members for (device, dtype), members in found.items()}

    yield Tensor, "device", property(gpu.device)
    yield Tensor, "is_cuda", property(on_gpu)
    yield Tensor, "is_meta", property(lambda tensor: tensor.device.type == "meta")
    yield Tensor, "get_device", lambda tensor: -1 if tensor.device.index is None else tensor.device.index
    yield Tensor, "data_ptr", lambda tensor: gpu.address(tensor)
    yield Tensor, "pin_memory", lambda tensor, *_: tensor
    yield torch._C, "_group_tensors_by_device_and_dtype", group
    yield torch.cuda.amp.common, "amp_definitely_not_available", lambda: False
    yield torch.amp.GradScaler, "_maybe_opt_step", _step
    yield nn.Module, "to", _moved
    yield nn.RNNBase, "flatten_parameters", lambda module: None
    yield torch.cuda, "synchronize", lambda *_: None
    yield torch.cuda, "is_current_stream_capturing", lambda: False
    yield torch.cuda, "get_device_capability", lambda *_: CAPABILITY
    yield torch.cuda, "get_device_name", lambda *_: "a GPU that computes nothing"
    yield torch.cuda, "get_device_properties", lambda *_: SimpleNamespace(total_memory=0)
    yield torch.cuda, "device", nullcontext
    yield torch.cuda, "device_of", nullcontext


def _step(scaler: Any, optimizer: Any, state: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
    """A step is taken where no gradient is found to overflow, which is read from the GPU."""
    for overflows in state["found_inf_per_device"].values():
        overflows.item()
    return optimizer.step(*args, **kwargs)


def _moved(
    module: nn.Module, device: torch.device | None = None, *, memory_format: torch.memory_format | None = None
) -> nn.Module:
    """The module on another device, what it shares still shared, as PyTorch has it between CPUs and GPUs alone."""
    moved: dict[int, Tensor] = {}

    def placed(tensor: Tensor) -> Tensor:
        value = tensor.detach() if device is None else tensor.detach().to(device)
        wanted = memory_format if memory_format is not None and tensor.dim() == 4 else None
        return value if wanted is None else value.contiguous(memory_format=wanted)

    for each in module.modules():
        parameters: dict[str, Any] = each._parameters
        for held in (parameters, each._buffers):
            for name, tensor in held.items():
                if tensor is not None:
                    held[name] = moved.setdefault(id(tensor), _held_as(tensor, placed(tensor)))
    return module


def _held_as(tensor: Tensor, value: Tensor) -> Tensor:
    return nn.Parameter(value, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else value


# What comes from the GPU: ones ----------------------------------------------------------------------------------------


def _number(args: Sequence[Any], given: Mapping[str, Any]) -> float:
    return args[0].dtype != torch.bool and 1


def _ones(args: Sequence[Any], given: Mapping[str, Any]) -> Tensor:
    return torch.ones(args[0].shape, dtype=given.get("dtype") or args[0].dtype)


FROM_GPU: Mapping[Any, Callable[[Sequence[Any], Mapping[str, Any]], bool]] = {
    aten._local_scalar_dense.default: lambda args, given: on_gpu(args[0]),
    aten._to_copy.default: lambda args, given: on_gpu(args[0]) and given.get("device") == torch.device("cpu"),
    aten.copy_.default: lambda args, given: on_gpu(args[1]) and not on_gpu(args[0]),
}
READ: Mapping[Any, Callable[[Sequence[Any], Mapping[str, Any]], Any]] = {
    aten._local_scalar_dense.default: _number,
    aten._to_copy.default: _ones,
    aten.copy_.default: lambda args, given: args[0].fill_(1),
}
