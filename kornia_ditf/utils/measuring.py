"""Peak memory of this process and of its device, and the energy that the device took."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Meter:
    """Measures from when it is made until it is read.

    The peak of resident memory is started anew, which takes Linux and the right to write to
    `/proc/self/clear_refs`. Elsewhere no peak is given: the only one that is known there is that of
    the whole life of the process, which earlier work may have caused.

    Args:
        device: name of the device whose memory and energy are measured.
    """

    def __init__(self, device: str) -> None:
        self.index = _cuda_index(device)
        self.renewed = False
        with suppress(OSError):
            _CLEAR.write_text("5")  # sets the peak to what is resident now
            self.renewed = True
        if self.index is not None:
            import torch

            torch.cuda.reset_peak_memory_stats(self.index)
        self.begin = _joules(self.index)

    def read(self) -> dict[str, float]:
        """Return `peak_bytes`, `device_peak_bytes` and `joules`, as far as they are known."""
        found = {}
        if self.renewed:
            status = dict(each.split(":", 1) for each in _STATUS.read_text("utf-8").splitlines())
            found["peak_bytes"] = float(status["VmHWM"].split()[0]) * 1024
        if self.index is not None:
            import torch

            found["device_peak_bytes"] = float(torch.cuda.max_memory_allocated(self.index))
        end = _joules(self.index)
        if self.begin is not None and end is not None:
            found["joules"] = end - self.begin
        return found


def count_flops(function: Callable[[], Result]) -> tuple[Result, float]:
    """Call a function, and count the floating-point operations of torch's matrix operations."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        result = function()
    return result, float(counter.get_total_flops())


def _cuda_index(device: str) -> int | None:
    if not device.startswith("cuda"):
        return None
    import torch

    index = torch.device(device).index
    return torch.cuda.current_device() if index is None else index


def _joules(index: int | None) -> float | None:
    """Read a GPU's counter of energy through NVML, where it and its bindings are installed."""
    if index is None:
        return None
    try:
        import pynvml
        import torch

        nvml: Any = pynvml
        nvml.nvmlInit()
        # Torch numbers the devices that are visible, NVML all.
        identifier = f"GPU-{torch.cuda.get_device_properties(index).uuid}"
        handle = nvml.nvmlDeviceGetHandleByUUID(identifier)
        return float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
    except Exception:  # noqa: BLE001 - another GPU, driver or permission
        return None
