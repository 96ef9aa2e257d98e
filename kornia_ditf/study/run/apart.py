"""Matchers in a process of their own, so that one that hangs, crashes or leaks ends alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from torch import nn

from kornia_ditf.datasets.pairs import Pair
from kornia_ditf.errors import DiTFError, MatcherError
from kornia_ditf.matchers.base import Extracted, ImageMatcher
from kornia_ditf.protocols.protocol import Fit
from kornia_ditf.study.store.records import image_name
from kornia_ditf.types import Frame, Matches
from kornia_ditf.utils.measuring import Meter, count_flops

_LOADING = 5, 60.0
"""Loading may take so many times as long as a pair, and so many seconds in any case."""

_KEPT = 4
"""Images whose features are kept."""


class HungError(MatcherError):
    """A matcher did not answer in time, or its process ended."""


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """Matches of a pair, and what finding them took.

    Args:
        matches: in the pixels of the pair's images.
        image_seconds: of each image whose features were extracted.
        pair_seconds: of matching, without that.
        costs: peak memory and the like, by the names of `Cost`'s fields.
    """

    matches: Matches
    image_seconds: tuple[float, ...]
    pair_seconds: float
    costs: Mapping[str, float]


class MatcherProcess:
    """A matcher that is loaded in another process.

    Args:
        name: for `load_matcher`.
        options: likewise.
        timeout: seconds that a pair may take; loading may take five times as long, and a minute.

    Raises:
        MatcherError: it cannot be loaded; the message says why.
    """

    def __init__(self, name: str, options: Mapping[str, Any], timeout: float) -> None:
        self.name, self.timeout = name, timeout
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
        request = (name, dict(options), torch.get_num_threads())
        times, least = _LOADING
        try:
            self.device: str = self._ask(request, max(times * timeout, least), "loading it")
        except MatcherError:
            self.close()
            raise

    def match(self, pair: Pair, fit: Fit, root: Path) -> Compared:
        """Match a pair.

        Args:
            pair: whose images are matched.
            fit: how a protocol fits images; a padded square is taken without its padding.
            root: of the data set, from which images are named.

        Raises:
            HungError: it did not answer in time, or its process ended; it is of no more use.
            MatcherError: it failed, or gave no matches.
        """
        sides = [
            (str(path), image_name(path, root), size)
            for path, size in ((pair.image_a, pair.size_a), (pair.image_b, pair.size_b))
        ]
        answer = self._ask((sides, fit), self.timeout, f"the pair {pair.name}")
        points_a, points_b, scores, *costs = answer
        matches = Matches(*(torch.from_numpy(each) for each in (points_a, points_b, scores)))
        return Compared(matches, *costs)

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.kill()
        self._process.wait()

    def _ask(self, request: Any, seconds: float, what: str) -> Any:
        try:
            self._connection.send(request)
            if not self._connection.poll(seconds):
                self.close()
                raise HungError(f"{what} took longer than {seconds:g} s (timeout)")
            kind, answer = self._connection.recv()
        except (EOFError, OSError) as error:
            code = self._process.wait()
            ended = signal.Signals(-code).name if code < 0 else f"code {code}"
            raise HungError(f"its process ended with {ended} at {what}") from error
        if kind == "failed":
            raise MatcherError(answer)
        return answer


def _serve(connection: Connection) -> None:
    """Load a matcher and match pairs until the other end is closed."""
    from kornia_ditf.registry.matchers import load_matcher

    name, options, threads = connection.recv()
    torch.set_num_threads(threads)
    try:
        served = _Served(load_matcher(name, **options))
    except BaseException as error:  # noqa: BLE001 - a plugin's SystemExit too
        connection.send(("failed", _said(error)))
        return
    connection.send(("ready", served.device))
    while True:
        request = connection.recv()
        try:
            answer: Any = "matches", served.match(*request)
        except BaseException as error:  # noqa: BLE001
            answer = "failed", _said(error)
        connection.send(answer)


class _Served:
    def __init__(self, matcher: ImageMatcher) -> None:
        self.matcher = matcher
        self.device = str(getattr(matcher, "device", None) or "cpu")
        self._kept: OrderedDict[tuple[str, Fit], Extracted] = OrderedDict()
        self._counted = not any(isinstance(each, nn.Module) for each in vars(matcher).values())

    def match(self, sides: Any, fit: Fit) -> tuple[Any, ...]:
        meter, spent, extracted = Meter(self.device), [], []
        for path, name, _ in sides:
            key = (path, fit)
            if key not in self._kept:
                begin = time.perf_counter()
                self._kept[key] = self.matcher.extract(_read(path, fit, self.matcher), name)
                spent.append(time.perf_counter() - begin)
            extracted.append(self._kept[key])
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        begin = time.perf_counter()
        matches = self.matcher.match(*extracted)
        seconds = time.perf_counter() - begin
        costs = meter.read()
        if not self._counted:  # a pair is matched once more: counting takes time
            self._counted = True
            with suppress(Exception):
                images = [_read(path, fit, self.matcher) for path, _, _ in sides]
                names = [name for _, name, _ in sides]
                costs["flops"] = count_flops(lambda: self._whole(images, names))[1]
        points = []
        for each, side, found in zip(
            extracted, sides, (matches.points_a, matches.points_b), strict=True
        ):
            frame = Frame(side[2], each.frame.image_size)
            points.append(frame.to_image(found.double()).numpy())
        return (*points, matches.scores.numpy(), tuple(spent), seconds, costs)

    def _whole(self, images: list[torch.Tensor], names: list[str]) -> None:
        extracted = [
            self.matcher.extract(image, name) for image, name in zip(images, names, strict=True)
        ]
        self.matcher.match(*extracted)


def _read(path: str, fit: Fit, matcher: ImageMatcher) -> torch.Tensor:
    from kornia_ditf.preprocess import as_image
    from kornia_ditf.protocols.fitting import prepare_image

    if fit.kind in ("whole", "pad") or not matcher.resizable:
        return as_image(path, upright=fit.upright)
    return prepare_image(path, fit)


def _said(error: BaseException) -> str:
    from kornia_ditf.registry.plugins import describe_error

    text = str(error) if isinstance(error, DiTFError) else describe_error(error)
    return " ".join(text.split())[:400]


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    Thread(target=_leave_with, args=(int(sys.argv[2]),), daemon=True).start()
    with suppress(OSError):  # Linux: where memory runs out, this process ends and no other
        Path("/proc/self/oom_score_adj").write_text("1000")
    os.dup2(2, 1)  # what a matcher prints must not mix with results
    try:
        _serve(Connection(int(sys.argv[1])))
    except (EOFError, OSError):  # the other end is closed
        os._exit(0)
