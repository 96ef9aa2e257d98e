"""The command `kornia-ditf`, a file per command."""

from __future__ import annotations


def main() -> None:
    """Run the command line; `kornia-ditf` and `python -m kornia_ditf` start here."""
    import os
    import sys
    from pathlib import Path

    if sys.flags.optimize >= 2:
        sys.exit(
            "error: options are declared in docstrings, which python -OO (PYTHONOPTIMIZE=2) "
            "removes; start kornia-ditf without it, or with -O"
        )

    from kornia_ditf.cli.app import app
    from kornia_ditf.cli.failures import end_on_signals, interrupt_code, say_error

    if sys.stderr is None:  # it is closed
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - until the process ends
    if sys.stdout is not None:
        # For results alone: what C code and child processes print goes to standard error.
        results = os.dup(sys.stdout.fileno())
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        sys.stdout = os.fdopen(results, "w", encoding=sys.stdout.encoding)
    for stream in (sys.stdout, sys.stderr):
        # A file name may hold bytes that no terminal's encoding knows.
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    # The libraries read these when they are first imported, which is later.
    for library in ("DIFFUSERS", "TRANSFORMERS"):
        os.environ.setdefault(f"{library}_VERBOSITY", "error")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    end_on_signals()
    try:
        app(prog_name="kornia-ditf")
    except KeyboardInterrupt as interrupt:  # before a command runs
        say_error("interrupted")
        sys.exit(interrupt_code(interrupt))
