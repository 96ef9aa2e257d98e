"""Stands for deep-image-matching's extractors."""

from .extractor_base import ExtractorBase, extractor_loader  # noqa: F401
