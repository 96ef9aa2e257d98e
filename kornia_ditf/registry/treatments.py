"""Finding the steps of treatments by name, those of plugins among them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kornia_ditf.backbones.spec import BackboneSpec
from kornia_ditf.config import DiTFConfig
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.registry.catalogue import Catalogue
from kornia_ditf.treatments import STEPS, Treatment, TreatmentSpec, parse_treatment

CATALOGUE = Catalogue(STEPS, {"register_treatments": TreatmentSpec})


def list_treatments() -> dict[str, TreatmentSpec]:
    """List the steps of treatments by name, built-in ones first.

    Example:
        >>> list(list_treatments())[:3]
        ['adaln', 'discard', 'layernorm']
    """
    return CATALOGUE.specs()


def find_treatment(text: str) -> Treatment:
    """Parse a treatment, whose steps may come from plugins; see `parse_treatment`.

    Raises:
        InvalidArgumentError: there is no such step, or its numbers are wrong.
    """
    try:
        return parse_treatment(text)  # no plugin need be asked
    except InvalidArgumentError:
        return parse_treatment(text, list_treatments().values())


def read_config(spec: BackboneSpec, changes: Mapping[str, Any]) -> DiTFConfig:
    """Return a backbone's preset with changes; its treatment may name steps of plugins.

    Raises:
        InvalidArgumentError: a value is out of range.
    """
    preset = spec.treatment if changes.get("facet", "input") == "input" else "raw"
    treatment = changes.get("treatment", preset)
    if isinstance(treatment, str):
        changes = {**changes, "treatment": find_treatment(treatment)}
    return DiTFConfig.from_spec(spec, **changes)
