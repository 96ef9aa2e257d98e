"""Stands for deep-image-matching where it is not installed."""

from . import config, extractors  # noqa: F401
