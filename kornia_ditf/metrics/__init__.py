"""Metrics of points, homographies, masks and flow: functions, and accumulators that define them."""

from __future__ import annotations
