"""`kornia-ditf doctor`: the libraries in use, and whether OpenCV is installed twice."""

from __future__ import annotations

from kornia_ditf.cli import options, output


def doctor(as_json: options.Json = False) -> None:
    """Show which OpenCV is in use, and whether several distributions provide it.

    opencv-python, opencv-contrib-python and their headless builds install the same files. If two
    are installed, the command that repairs it is printed.
    """
    from kornia_ditf.utils.opencv import find_opencv

    found = find_opencv()
    document = {
        "cv2": {
            "folder": None if found.folder is None else str(found.folder),
            "distribution": found.distribution,
            "version": found.version,
            "claimed_by": dict(found.claims),
            "problem": found.problem,
        }
    }
    claims = ", ".join(f"{name} {version}" for name, version in found.claims.items())
    in_use = f"{found.distribution} {found.version}" if found.distribution else "another build"
    facts = [
        ("cv2", str(found.folder or "not installed")),
        ("in use", in_use if found.folder else "none"),
        ("claimed by", claims or "no distribution"),
        ("problem", found.problem or "none"),
    ]
    output.show(document, facts, as_json=as_json)
