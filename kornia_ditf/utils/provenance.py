"""Nothing in; what a number depends on besides the study, out: versions, hardware, commit, date."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = ("kornia-ditf", "torch", "diffusers", "transformers", "opencv-python", "numpy")


def versions() -> dict[str, str]:
    """Give the versions of the libraries that numbers may depend on."""
    return {"python": platform.python_version()} | {name: _version(name) for name in LIBRARIES}


def hardware() -> dict[str, Any]:
    """Describe this machine: processor, cores, memory and accelerators."""
    import torch

    cuda = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(_memory() / 2**30, 1),
        "accelerators": [torch.cuda.get_device_name(index) for index in cuda],
        "threads": torch.get_num_threads(),
    }


def commit() -> str | None:
    """Name the commit of this package's checkout; None where it is installed without one."""
    folder = Path(__file__).parent
    head = _git(folder, "rev-parse", "HEAD")
    if head is None or _git(folder, "ls-files", "--error-unmatch", __file__) is None:
        return None
    return head + (" with changes" if _git(folder, "status", "--porcelain", "--", "..") else "")


def now() -> str:
    """Give the date and time, UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        command = ["git", "-C", str(folder), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 0
