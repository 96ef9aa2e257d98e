"""Every error that kornia_ditf raises on purpose; all descend from `DiTFError`."""

from __future__ import annotations

from os import PathLike
from pathlib import Path


class DiTFError(Exception):
    """Base class of all errors that kornia_ditf and its plugins raise deliberately."""


class InvalidArgumentError(DiTFError, ValueError):
    """An argument has a wrong value, shape, dtype or range; the message names it."""


class ImageError(DiTFError, ValueError):
    """An image file or array cannot be read or used; the message names the file."""


class CheckpointError(DiTFError):
    """A checkpoint's folder lacks a file, or a file in it is corrupt or of another model."""


class HubError(DiTFError):
    """The model hub did not give a file."""


class GatedRepositoryError(HubError):
    """The repository wants its licence accepted and a token before it gives a file."""


class HubUnreachableError(HubError):
    """There is no network, or the hub is switched off, and the file is not cached."""


class UnknownBackboneError(DiTFError, LookupError):
    """No backbone has that name, and no folder does."""


class CaptureError(DiTFError, RuntimeError):
    """A transformer did not behave as its family declares, so its block was not captured."""


class MissingExtraError(DiTFError, ImportError):
    """An optional dependency is not installed; the message holds the command that installs it."""


class ConformanceError(DiTFError, AssertionError):
    """A backbone or descriptor breaks rules of `kornia_ditf.testing`; the message names each."""


class DatasetError(DiTFError):
    """A data set's file is missing, malformed, or not where its published layout has it.

    Args:
        file: the file or folder.
        reason: what is wrong with it, what was expected, and how to get it.
    """

    def __init__(self, file: str | PathLike[str], reason: str) -> None:
        super().__init__(file, reason)
        self.file, self.reason = file, reason

    def __str__(self) -> str:
        return f"cannot use {self.file}: {self.reason}"


class StudyError(DiTFError):
    """A study's folder is in use or holds no finished study, or a part of its work failed."""


class MatcherError(DiTFError, RuntimeError):
    """An image matcher failed, or gave matches that are none; the message names it."""


class OutputError(DiTFError, OSError):
    """A result could not be written."""


class PresetError(InvalidArgumentError):
    """A calibrated preset cannot be read, or holds for other weights; the message names it."""


class DamagedFileError(DiTFError):
    """A file of descriptors, matches or a study does not hold what was written.

    Args:
        path: the file.
        reason: how that was noticed.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path} is damaged ({self.reason})"

    def remove(self) -> None:
        """Remove the file, so that it is made again.

        Raises:
            OutputError: it cannot be removed.
        """
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{self}, and cannot be removed ({error.strerror})") from error


class PluginError(DiTFError):
    """A plugin's own code failed while it loaded something; the message names the plugin."""


class PluginWarning(UserWarning):
    """A plugin was left out; everything else goes on."""


class PresetWarning(UserWarning):
    """A calibrated preset that cannot be read was left out; the message names its file."""


class MassiveChannelsWarning(UserWarning):
    """Massive channels were found that should be looked at before results are trusted."""


class CompilationWarning(UserWarning):
    """A model could not be compiled and runs as it is, with the same results."""
