"""Which of the four OpenCV distributions provides `cv2`, found without importing it.

opencv-python, opencv-contrib-python and their headless builds install the same folder, so
installing one overwrites another, and uninstalling either removes the files of both.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path

DISTRIBUTIONS = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)


@dataclass(frozen=True, slots=True)
class OpenCVInstallation:
    """The `cv2` that is imported, and the distributions that claim to have installed it.

    Args:
        folder: of the package `cv2`; None where there is none.
        distribution: the one whose files are in the folder, as these say themselves; None for an
            OpenCV that is not from such a distribution, as conda's or Debian's.
        version: of those files, as far as they say.
        claims: version of each installed distribution that provides `cv2`, by name.
    """

    folder: Path | None
    distribution: str | None
    version: str | None
    claims: Mapping[str, str]

    @property
    def problem(self) -> str | None:
        """What is wrong and the commands that repair it; None if all is well."""
        if len(self.claims) > 1:
            keep = self.distribution or ""
            keep = keep if keep in self.claims else min(self.claims)
            names = " ".join(sorted(self.claims))
            return (
                f"{len(self.claims)} distributions provide cv2 and overwrite one another; to keep "
                f"{keep}: pip uninstall -y {names} && "
                f"pip install --no-deps {keep}=={self.claims[keep]}"
            )
        if self.folder is None and self.claims:
            [(name, version)] = self.claims.items()
            return (
                f"the files of {name} are gone, as after uninstalling another OpenCV: "
                f"pip install --force-reinstall --no-deps {name}=={version}"
            )
        return "OpenCV is not installed: pip install opencv-python" if self.folder is None else None


def find_opencv() -> OpenCVInstallation:
    """Find the `cv2` in force and the distributions that claim it."""
    spec = find_spec("cv2")
    # After a removal a folder without __init__.py may be left, which has no origin.
    folder = Path(spec.origin).parent if spec is not None and spec.origin else None
    claims = {
        name: dist.version
        for dist in distributions()
        if (name := dist.name.lower().replace("_", "-")) in DISTRIBUTIONS
        and (folder is None or Path(str(dist.locate_file("cv2"))).resolve() == folder.resolve())
    }
    if folder is None:
        return OpenCVInstallation(None, None, None, claims)
    facts = _read_assignments(folder / "version.py")
    if "contrib" not in facts:
        return OpenCVInstallation(folder, None, None, claims)
    contrib, headless = ("-contrib" if facts["contrib"] else "", facts.get("headless"))
    name = f"opencv{contrib}-python{'-headless' if headless else ''}"
    return OpenCVInstallation(folder, name, str(facts.get("opencv_version")), claims)


def _read_assignments(file: Path) -> dict[str, object]:
    try:
        lines = ast.parse(file.read_text("utf-8")).body
    except (OSError, ValueError, SyntaxError):
        return {}
    return {
        target.id: line.value.value
        for line in lines
        if isinstance(line, ast.Assign) and isinstance(line.value, ast.Constant)
        for target in line.targets
        if isinstance(target, ast.Name)
    }
