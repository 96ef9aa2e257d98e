"""Interleaved timing and peak memory of competing functions."""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import torch

from kornia_ditf.utils.measuring import Meter

Work = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Timing:
    """What one contestant needed.

    Args:
        seconds: of every round, of the processor; on a GPU or where asked for, of the clock.
        peak_mb: the most memory beyond what was held before, in MB; None where it is not known.
    """

    seconds: tuple[float, ...]
    peak_mb: float | None

    @property
    def median(self) -> float:
        """The middle of all rounds, in seconds."""
        return statistics.median(self.seconds)

    def ratios(self, other: Timing) -> tuple[float, float, float]:
        """Return how many times as long as another it took: least, median, most, by rounds.

        One that had another number of turns is compared with the other's median.
        """
        theirs = other.seconds
        if len(self.seconds) != len(theirs):
            theirs = (other.median,) * len(self.seconds)
        rounds = [mine / their for mine, their in zip(self.seconds, theirs, strict=True)]
        return min(rounds), statistics.median(rounds), max(rounds)


def time_in_turns(
    contestants: Mapping[str, Work],
    *,
    rounds: int,
    device: torch.device,
    slow: frozenset[str] = frozenset(),
    wall: bool = False,
) -> tuple[dict[str, Timing], dict[str, object]]:
    """Time contestants in turns.

    Args:
        contestants: by name.
        rounds: how many turns each gets, after one to warm up and one in which its memory is
            watched, which makes it slower.
        device: where they work.
        slow: those who get one turn in all.
        wall: time by the clock and not the processor's, as on a GPU always.

    Returns:
        the timings and the last results, by name.
    """
    results: dict[str, object] = {}
    peaks: dict[str, float | None] = {}
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 2):
        for name, work in contestants.items():
            watched = turn == 1
            if name in slow and not watched:
                continue
            if watched:
                meter = _meter(device)
                before = _peak_bytes(meter)
            started = _clock(device, wall)
            results[name] = work()
            taken = _clock(device, wall) - started
            if watched:
                peaks[name] = (_peak_bytes(meter) - before) / 2**20 or None
            if turn > 1 or name in slow:
                seconds[name].append(taken)
    return {name: Timing(tuple(seconds[name]), peaks[name]) for name in contestants}, results


def _clock(device: torch.device, wall: bool) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() if wall or device.type == "cuda" else time.process_time()


def _meter(device: torch.device) -> Meter:
    gc.collect()
    with suppress(OSError, AttributeError):
        # Memory that was freed but is still held would hide what is needed.
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    return Meter(str(device))


def _peak_bytes(meter: Meter) -> float:
    found = meter.read()
    return found.get("device_peak_bytes", found.get("peak_bytes", 0.0))
