"""Treatments: the steps between a block's input and its descriptor."""

from kornia_ditf.treatments.compose import (
    TREATMENTS,
    apply_treatment,
    describe_tap,
    learn_from_blank,
    parse_treatment,
)
from kornia_ditf.treatments.spec import Treatment, TreatmentSpec
from kornia_ditf.treatments.steps import STEPS, modulate

__all__ = [
    "STEPS",
    "TREATMENTS",
    "Treatment",
    "TreatmentSpec",
    "apply_treatment",
    "describe_tap",
    "learn_from_blank",
    "modulate",
    "parse_treatment",
]
