"""Image matchers: sparse and dense, classical and learned, behind one interface."""

from __future__ import annotations

from kornia_ditf.matchers import kornia_models, opencv, stored
from kornia_ditf.matchers.base import MatcherSpec

SPECS: tuple[MatcherSpec, ...] = (*opencv.SPECS, *kornia_models.SPECS, stored.SPEC)
