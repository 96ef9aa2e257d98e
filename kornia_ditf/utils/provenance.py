"""Versions, hardware, commit and date, recorded with every result."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = ("kornia-ditf", "torch", "diffusers", "transformers", "opencv-python", "numpy")


def versions(names: Iterable[str] = LIBRARIES) -> dict[str, str]:
    """Return the versions of Python and of libraries."""
    return {"python": platform.python_version()} | {name: package_version(name) for name in names}


def hardware() -> dict[str, Any]:
    """Return processor, cores, memory and accelerators of this machine."""
    import torch

    cuda = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory_bytes() / 2**30, 1),
        "accelerators": [torch.cuda.get_device_name(index) for index in cuda],
        "threads": torch.get_num_threads(),
    }


def commit() -> str | None:
    """Return the commit of this package's checkout; None if it is installed without one."""
    folder = Path(__file__).parent
    head = _git(folder, "rev-parse", "HEAD")
    if head is None or _git(folder, "ls-files", "--error-unmatch", __file__) is None:
        return None
    return head + (" with changes" if _git(folder, "status", "--porcelain", "--", "..") else "")


def now() -> str:
    """Return the date and time, UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def package_version(name: str) -> str:
    """Return an installed package's version, or `unknown`."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def installed_instead(requirement: str) -> str | None:
    """Return what is installed of a package that is too old or missing; None where it will do.

    Example:
        >>> installed_instead("torch>=1.0"), installed_instead("no-such-package>=1.0")
        (None, 'no no-such-package')
    """
    name, _, least = requirement.partition(">=")
    if not name:
        return None
    found = package_version(name)
    if found == "unknown":
        return f"no {name}"
    known, needed = ([int(n) for n in re.findall(r"\d+", v)[:2]] for v in (found, least))
    return None if known >= needed else f"{name} {found}"


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        command = ["git", "-C", str(folder), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def processor() -> str:
    """Return the name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def memory_bytes() -> int:
    """Return this machine's memory in bytes; 0 if the system does not report it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 0
