"""Matchers in a process of their own, so that one that hangs, crashes or leaks ends alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from torch import nn

from kornia_ditf.datasets.pairs import Pair
from kornia_ditf.errors import DiTFError, MatcherError
from kornia_ditf.matchers.base import Extracted
from kornia_ditf.preprocess import as_image
from kornia_ditf.protocols.fitting import prepare_image
from kornia_ditf.protocols.protocol import Fit
from kornia_ditf.registry.matchers import find_matcher, load_matcher, missing_for, takes_device
from kornia_ditf.registry.plugins import describe_error
from kornia_ditf.study.define.spec import MatcherChoice
from kornia_ditf.types import Frame, Matches
from kornia_ditf.utils.measuring import Meter, count_flops

_LOADING = 5, 60.0
"""Loading may take so many times as long as a pair, and so many seconds in any case."""

_KEPT = 4
"""Images whose features are kept."""


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """Matches in the pixels of a pair's images, and what finding them took.

    Args:
        image_seconds: of each image whose features were extracted.
        pair_seconds: of matching, without that.
        costs: peak memory and the like, by the names of `Cost`'s fields.
    """

    matches: Matches
    image_seconds: tuple[float, ...]
    pair_seconds: float
    costs: Mapping[str, float]


class MatcherProcess:
    """A matcher in another process, which is started when the first pair is matched.

    Args:
        choice: what the study says of the matcher.
        device: for its option `device`, if it has one and the study gives none.
    """

    def __init__(self, choice: MatcherChoice, device: str | None = None) -> None:
        self.choice, self.device = choice, device
        self.broken = ""  # why no pair can be matched any more
        self._process: subprocess.Popen[bytes] | None = None

    def match(self, pair: Pair, names: Sequence[str], fit: Fit) -> Compared:
        """Match a pair.

        Args:
            pair: whose images are matched.
            names: of its images, for matchers that look them up.
            fit: how a protocol fits images; a padded square is taken without its padding.

        Raises:
            MatcherError: the matcher failed. Where it cannot be loaded, does not answer in time, or
                its process ends, it is `broken`, and every other pair fails for the same reason.
        """
        if self.broken:
            raise MatcherError(self.broken)
        if self._process is None:
            self._start()
        paths = str(pair.image_a), str(pair.image_b)
        sides = list(zip(paths, names, (pair.size_a, pair.size_b), strict=True))
        *found, spent, seconds, costs = self._ask(
            (sides, fit), self.choice.timeout, f"the pair {pair.name}"
        )
        matches = Matches(*(torch.from_numpy(each) for each in found))
        return Compared(matches, spent, seconds, costs)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._connection.close()
            self._process.kill()
            self._process.wait()

    def _start(self) -> None:
        name, options = self.choice.name, dict(self.choice.options)
        try:
            reason = missing_for(find_matcher(name))
            if reason:
                raise MatcherError(reason)
            if self.device is not None and takes_device(name):
                options.setdefault("device", self.device)
            self._connection, theirs = Pipe()
            path = os.pathsep.join(each for each in sys.path if each)
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # an interruption reaches this process, which ends that one
            )
            theirs.close()
            times, least = _LOADING
            request = (name, options, torch.get_num_threads())
            self._ask(request, max(times * self.choice.timeout, least), "loading it")
        except DiTFError as error:
            self.close()
            self.broken = str(error)
            raise MatcherError(self.broken) from error

    def _ask(self, request: Any, seconds: float, what: str) -> Any:
        assert self._process is not None
        try:
            self._connection.send(request)
            if self._connection.poll(seconds):
                sound, answer = self._connection.recv()
                if sound:
                    return answer
                raise MatcherError(answer)
            self.broken = f"{what} took longer than {seconds:g} s (timeout)"
        except (EOFError, OSError):
            code = self._process.wait()
            ended = signal.Signals(-code).name if code < 0 else f"code {code}"
            self.broken = f"its process ended with {ended} at {what}"
        self.close()
        raise MatcherError(self.broken)


def _serve(connection: Connection) -> None:
    """Load a matcher and match pairs until the other end is closed."""
    served = _Served()
    work: Any = served.load
    while True:
        request = connection.recv()
        try:
            answer = True, work(*request)
        except BaseException as error:  # noqa: BLE001 - a plugin's SystemExit too
            text = str(error) if isinstance(error, DiTFError) else describe_error(error)
            answer = False, " ".join(text.split())[:400]
        connection.send(answer)
        work = served.match


class _Served:
    def load(self, name: str, options: dict[str, Any], threads: int) -> None:
        torch.set_num_threads(threads)
        self.matcher = matcher = load_matcher(name, **options)
        self.device = str(getattr(matcher, "device", None) or "cpu")
        self.spent: list[float] = []
        self.extract = lru_cache(_KEPT)(self._extract)
        self.counted = not any(isinstance(each, nn.Module) for each in vars(matcher).values())

    def match(self, sides: Any, fit: Fit) -> tuple[Any, ...]:
        meter = Meter(self.device)
        self.spent.clear()
        extracted = [self.extract(path, name, fit) for path, name, _ in sides]
        begin = time.perf_counter()
        matches = self.matcher.match(*extracted)
        seconds = time.perf_counter() - begin
        spent, costs = tuple(self.spent), meter.read()
        if not self.counted:  # a pair is matched once more: counting takes time
            self.counted = True
            with suppress(Exception):
                costs["flops"] = count_flops(
                    lambda: self.matcher.match(*(self._extract(p, n, fit) for p, n, _ in sides))
                )[1]
        points = [
            Frame(size, each.frame.image_size).to_image(found.double()).numpy()
            for each, (_, _, size), found in zip(
                extracted, sides, (matches.points_a, matches.points_b), strict=True
            )
        ]
        return (*points, matches.scores.numpy(), spent, seconds, costs)

    def _extract(self, path: str, name: str, fit: Fit) -> Extracted:
        begin = time.perf_counter()
        if fit.kind in ("whole", "pad") or not self.matcher.resizable:
            image = as_image(path, upright=fit.upright)
        else:
            image = prepare_image(path, fit)
        extracted = self.matcher.extract(image, name)
        self.spent.append(time.perf_counter() - begin)
        return extracted


def end_with_parent(parent: int) -> None:
    """End this process soon after its parent, however that ends."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    end_with_parent(int(sys.argv[2]))
    with suppress(OSError):  # Linux: where memory runs out, this process ends and no other
        Path("/proc/self/oom_score_adj").write_text("1000")
    os.dup2(2, 1)  # what a matcher prints must not mix with results
    try:
        _serve(Connection(int(sys.argv[1])))
    except (EOFError, OSError):  # the other end is closed
        os._exit(0)
