"""Ray: a cluster at an address, or one that is started on this machine."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.utils.extras import import_extra


@contextmanager
def on_cluster(address: str | None = None, *, store_bytes: int | None = None) -> Iterator[Any]:
    """Connect to a Ray cluster, and yield the module `ray`.

    A connection that is there already is used and kept. Ray's chatter is silenced.

    Args:
        address: of the cluster; None starts one on this machine, and ends it with the block.
        store_bytes: size of the object store of a cluster that is started here.

    Raises:
        MissingExtraError: Ray is not installed.
        InvalidArgumentError: there is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would call home
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a default that will change
    os.environ.setdefault("RAY_DATA_LOG_LEVEL", "ERROR")
    ray = import_extra("ray", "--engine ray needs ray", "kornia-ditf[ray]")
    if ray.is_initialized():
        with redirect_stdout(sys.stderr):  # where Ray tells of nodes that are lost
            yield ray
        return
    started: dict[str, Any] = {
        "include_dashboard": False,
        "num_cpus": os.cpu_count(),
        "object_store_memory": store_bytes,
    }
    handler = signal.getsignal(signal.SIGTERM)
    try:
        _knock(address)
        ray.init(
            address or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            **({} if address else started),
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise InvalidArgumentError(
            f"there is no Ray cluster at {address!r} ({error}); start one with "
            "`ray start --head`, or leave out --ray-address"
        ) from error
    try:
        signal.signal(signal.SIGTERM, handler)  # Ray has put its own in its place
        with redirect_stdout(sys.stderr):
            yield ray
    finally:
        ray.shutdown()


def _knock(address: str | None) -> None:
    """Try whether somebody listens at HOST:PORT, for which Ray itself waits for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()
