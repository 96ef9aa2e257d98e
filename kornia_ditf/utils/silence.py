"""Silencing warnings of other libraries, safely in any number of threads."""

from __future__ import annotations

import threading
import warnings


class _Silence:
    """Ignores all warnings while at least one thread is inside.

    `warnings.catch_warnings` used by two threads at once may leave the filters changed for ever.
    """

    def __init__(self) -> None:
        self._lock, self._depth = threading.Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            self._depth += 1
            if self._depth == 1:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.simplefilter("ignore")

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._depth -= 1
            if not self._depth:
                self._caught.__exit__(None, None, None)


silence = _Silence()
