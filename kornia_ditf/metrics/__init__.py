"""Metrics of points, homographies and masks: functions, and accumulators over data sets."""

from __future__ import annotations
