"""Comparative studies, from one YAML file to records and a report with confidence intervals."""

from __future__ import annotations

from importlib.util import find_spec

from kornia_ditf.errors import MissingExtraError

_NEEDED = ("filelock", "jinja2", "pyarrow", "pydantic", "yaml")
_missing = [name for name in _NEEDED if find_spec(name) is None]
if _missing:
    raise MissingExtraError(
        f"studies need {', '.join(_missing)}; type `pip install 'kornia-ditf[study]'`"
    )
