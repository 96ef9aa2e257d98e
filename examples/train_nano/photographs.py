"""Gather freely licensed photographs, and the list of their licences, from Debian packages.

    python examples/train_nano/photographs.py --data DIR

downloads the packages with `apt-get download`, unpacks them without installing, and keeps every
photograph that the package's own copyright file places under one of LICENSES. The folder then
holds `photographs/NNNN.jpg` and `photographs.csv`: source path, package, licence, sha256.
"""

from __future__ import annotations

import argparse
import csv
import fnmatch
import hashlib
import re
import struct
import subprocess
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[Any]

# package -> where its files stand when installed, and in the source tree that the copyright file
# speaks of
PACKAGES = {
    "gcompris-qt-data": ("", ""),
    "supertuxkart-data": ("usr/share/games/supertuxkart/", ""),
    "lomiri-wallpapers-16.04": ("usr/share/backgrounds/", "16.04/"),
    "lomiri-wallpapers-20.04": ("usr/share/backgrounds/", "20.04/"),
}
LICENSES = ("CC0", "CC-BY", "CC-by", "public-domain", "Public-Domain", "Public domain", "PD")
LONG_SIDE = 640
SHORTEST_SIDE = 160
HELD_OUT = 18
# Rendered maps and surfaces that are no picture of anything.
NOT_PHOTOGRAPHS = re.compile(
    r"normal|_nm\.|_n\.|gloss|specular|lightmap|sky|particle", re.IGNORECASE
)


def fetch(package: str, folder: Path) -> Path:
    """Download and unpack one package, once; return the folder that holds its files."""
    unpacked = folder / package
    if unpacked.is_dir():
        return unpacked
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["apt-get", "download", package], cwd=folder, check=True)
    archive = next(folder.glob(f"{package}_*.deb"))
    subprocess.run(["dpkg-deb", "-x", archive.name, package], cwd=folder, check=True)
    return unpacked


@dataclass(frozen=True)
class Terms:
    """What a copyright file says of the files that match a pattern."""

    pattern: str
    license: str
    holder: str


def read_copyright(path: Path) -> list[Terms]:
    """Read a machine-readable copyright file, in its order."""
    terms = []
    for stanza in re.split(r"\n\s*\n", path.read_text(errors="replace")):
        fields = {
            name: " ".join(value.split())
            for name, value in re.findall(
                r"^(\w+):((?:.*\n?)(?:[ \t]+.*\n?)*)", stanza, re.MULTILINE
            )
        }
        if "Files" in fields and "License" in fields:
            # The licence's name is the field's first line; its text may follow.
            license_name = re.search(r"^License:[ \t]*(.+)$", stanza, re.MULTILINE)
            name = license_name[1].strip() if license_name else "unknown"
            holder = re.sub(r"\s*<[^>]*>", "", fields.get("Copyright", ""))
            terms += [Terms(pattern, name, holder) for pattern in fields["Files"].split()]
    return terms


def terms_of(source: str, terms: list[Terms]) -> Terms:
    """Return what holds for a file: in this format the last pattern that matches decides."""
    # The package holds as webp what the source tree, and so the copyright file, calls jpg or png.
    stem = source.removesuffix(".webp")
    names = [source, stem + ".jpg", stem + ".png"] if stem != source else [source]
    for entry in reversed(terms):
        if any(fnmatch.fnmatchcase(name, entry.pattern) for name in names):
            return entry
    return Terms("", "unknown", "")


def read_resources(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of every file in a Qt resource archive."""
    blob = path.read_bytes()
    version, tree, data, names = struct.unpack(">4I", blob[4:20])
    entry_size = 14 if version == 1 else 22

    def walk(index: int, folder: str) -> Iterator[tuple[str, bytes]]:
        start = tree + index * entry_size
        name_at, flags = struct.unpack(">IH", blob[start : start + 6])
        length = struct.unpack(">H", blob[names + name_at : names + name_at + 2])[0]
        name = blob[names + name_at + 6 : names + name_at + 6 + 2 * length].decode("utf-16-be")
        full = f"{folder}/{name}" if index else ""
        if flags & 2:
            count, first = struct.unpack(">II", blob[start + 6 : start + 14])
            for child in range(first, first + count):
                yield from walk(child, full)
        elif not flags & 4:  # zstd is used for text alone
            at = data + struct.unpack(">I", blob[start + 10 : start + 14])[0]
            size = struct.unpack(">I", blob[at : at + 4])[0]
            content = blob[at + 4 : at + 4 + size]
            yield full, zlib.decompress(content[4:]) if flags & 1 else content

    return walk(0, "")


def pictures(unpacked: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (path in the package, encoded picture), in a fixed order."""
    for path in sorted(unpacked.rglob("*")):
        if path.suffix.lower() in {".jpg", ".jpeg", ".png", ".webp"} and path.is_file():
            yield str(path.relative_to(unpacked)), path.read_bytes()
        elif path.suffix == ".rcc":
            for name, content in read_resources(path):
                if Path(name).suffix.lower() in {".jpg", ".jpeg", ".png", ".webp"}:
                    yield name.removeprefix("/gcompris/"), content


def decode_photograph(encoded: bytes) -> Image | None:
    """Decode to BGR with a longest side of at most LONG_SIDE; None for what is no photograph."""
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 3 or image.dtype != np.uint8:
        return None
    if image.shape[2] == 4:
        if image[..., 3].min() < 255:  # a cut-out
            return None
        image = image[..., :3]
    if min(image.shape[:2]) < SHORTEST_SIDE:
        return None
    factor = LONG_SIDE / max(image.shape[:2])
    if factor < 1:
        size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    # Drawings have few grey levels and flat areas; photographs have texture nearly everywhere.
    flat = float((cv2.Laplacian(gray, cv2.CV_32F) == 0).mean())
    if flat > 0.4 or gray.std() < 15:
        return None
    return np.ascontiguousarray(image, dtype=np.uint8)


def collect(data: Path) -> list[dict[str, str]]:
    """Write the photographs and their list; return the list."""
    folder = data / "photographs"
    folder.mkdir(parents=True, exist_ok=True)
    listed: list[dict[str, str]] = []
    seen: set[str] = set()
    for package, (installed, stated_under) in PACKAGES.items():
        unpacked = fetch(package, data / "packages")
        stated = read_copyright(unpacked / "usr/share/doc" / package / "copyright")
        for source, encoded in pictures(unpacked):
            terms = terms_of(stated_under + source.removeprefix(installed), stated)
            digest = hashlib.sha256(encoded).hexdigest()
            if digest in seen or NOT_PHOTOGRAPHS.search(source):
                continue
            if not any(terms.license.startswith(name) for name in LICENSES):
                continue
            image = decode_photograph(encoded)
            if image is None:
                continue
            seen.add(digest)
            name = f"{len(listed):04d}.jpg"
            cv2.imwrite(str(folder / name), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
            listed.append(
                {
                    "file": name,
                    "package": package,
                    "source": source,
                    "license": terms.license,
                    "holder": terms.holder,
                    "sha256": digest,
                }
            )
    with (data / "photographs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(listed[0]))
        writer.writeheader()
        writer.writerows(listed)
    return listed


def read_rgb(path: Path) -> Image:
    """Read a picture as RGB, shape (H, W, 3)."""
    image = cv2.imread(str(path))
    if image is None:
        raise FileNotFoundError(f"no readable picture at {path}")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def split(data: Path) -> tuple[list[Image], list[Image]]:
    """Read the photographs in RGB: those to train on, and every HELD_OUT-th to choose by."""
    with (data / "photographs.csv").open(newline="") as file:
        listed = list(csv.DictReader(file))
    paths = [data / "photographs" / entry["file"] for entry in listed]
    images = [read_rgb(path) for path in paths]
    training = [image for index, image in enumerate(images) if index % HELD_OUT]
    return training, images[::HELD_OUT]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    listed = collect(parser.parse_args().data)
    for package in PACKAGES:
        licenses = [entry["license"] for entry in listed if entry["package"] == package]
        counts = {name: licenses.count(name) for name in sorted(set(licenses))}
        print(f"{package}: {len(licenses)} photographs {counts}")


if __name__ == "__main__":
    main()
