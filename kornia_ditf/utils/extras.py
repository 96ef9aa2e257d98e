"""Importing optional dependencies."""

from __future__ import annotations

import shlex
from importlib import import_module
from typing import Any

from kornia_ditf.errors import MissingExtraError


def import_extra(module: str, purpose: str, package: str) -> Any:
    """Import a module of an optional dependency.

    Args:
        module: its name.
        purpose: what needs which package, as the error begins.
        package: what to install.

    Raises:
        MissingExtraError: it is not installed.

    Example:
        >>> import_extra("no_such_module", "this needs a module", "kornia-ditf[extra]")
        Traceback (most recent call last):
        kornia_ditf.errors.MissingExtraError: this needs a module; type \
`pip install 'kornia-ditf[extra]'`
    """
    try:
        return import_module(module)
    except ImportError as error:
        install = f"pip install {shlex.quote(package)}"
        raise MissingExtraError(f"{purpose}; type `{install}`") from error
