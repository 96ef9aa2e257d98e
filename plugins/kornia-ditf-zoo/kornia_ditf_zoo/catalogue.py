"""Every published model of these families; `models.csv` has a row for each.

An empty cell is the family's own, or the default of `DiffusersBackbone.spec`.
"""

from __future__ import annotations

import csv
from importlib.resources import files
from pkgutil import resolve_name

from kornia_ditf import BackboneSpec


def _spec(row: dict[str, str]) -> BackboneSpec:
    family = resolve_name(f"kornia_ditf_zoo.{row.pop('family')}")
    known = {name: int(cell) if cell.isdecimal() else cell for name, cell in row.items() if cell}
    spec: BackboneSpec = family.spec(**known)
    return spec


with (files("kornia_ditf_zoo") / "models.csv").open(encoding="utf-8") as rows:
    SPECS = tuple(_spec(row) for row in csv.DictReader(rows))
