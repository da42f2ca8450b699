"""Whether a model fits into the memory that is there, before any of it is read."""

from pathlib import Path

import torch

from tasks.errors import ModelError
from tasks.host.memory import available_bytes
from tasks.registry.inspection import Inspection

GIGABYTE = 1e9


def check_memory(inspection: Inspection, dtype: torch.dtype, device: torch.device, slots: int, context: int) -> int:
    """Bytes that the model is going to take. Raises `ModelError` with both numbers where there are fewer."""
    needed = inspection.memory_needed(dtype.itemsize, slots, context)
    there = available(device)
    if there is not None and needed > there:
        weights = f"{inspection.parameters * dtype.itemsize / GIGABYTE:.1f} GB of weights as {_name(dtype)}"
        smaller = "a smaller dtype, " if dtype.itemsize > 2 else ""
        raise ModelError(
            f"it needs about {needed / GIGABYTE:.1f} GB of memory ({weights}, the rest for {slots} slots), and "
            f"{there / GIGABYTE:.1f} GB are free on {device}; use {smaller}fewer slots, a smaller model or another "
            "machine."
        )
    return needed


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def available(device: torch.device) -> int | None:
    """Bytes that are free on a device; None where that is not known."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else available_bytes()


def taken(device: torch.device) -> int | None:
    """Bytes that this process has taken on a device, None where that is not known."""
    if device.type == "cuda":
        return int(torch.cuda.memory_reserved(device))
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")), None)
