"""Arguments in; text, JSON and files out: the command `kornia-ditf`, a file per command."""

from __future__ import annotations


def main() -> None:
    """Run the command line; `kornia-ditf` and `python -m kornia_ditf` start here."""
    import os
    import sys

    from kornia_ditf.cli.app import app

    if sys.stdout is not None and sys.stderr is not None:
        # Results alone: what C code and child processes print goes to standard error.
        results = os.dup(1)
        os.dup2(2, 1)
        sys.stdout = os.fdopen(results, "w", encoding=sys.stdout.encoding)
    for stream in (sys.stdout, sys.stderr):
        # A file name may hold bytes that no terminal's encoding knows.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    # The libraries read these when they are first imported, which is later.
    for library in ("DIFFUSERS", "TRANSFORMERS"):
        os.environ.setdefault(f"{library}_VERBOSITY", "error")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    app(prog_name="kornia-ditf")
