"""Published evaluation protocols: their numbers, fitting of inputs, and scoring of pairs."""

from __future__ import annotations
