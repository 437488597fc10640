"""Build the toolkit's wheel, and bundles of all wheels that a Raspberry Pi without internet needs.

A bundle is a tar file with one wheel of each package, ``requirements.txt`` with their versions and hashes, and
``fltestbed.txt`` with the toolkit's own. It depends on the processor and the Python of the Pi, not on those of the machine
that makes it. What has been downloaded is kept; without a change nothing is asked or made again, also without internet.

The first word of each line that is printed is "made" or "kept", the last one the file.

Example::

    python -m deploy.bundle wheel build
    python -m deploy.bundle collect build --machine aarch64 --python 3.13 --extra digits
"""

import argparse
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from deploy.check_wheels import GLIBC_MINOR, ROOT, audit, resolve, take

CONSTRAINTS = {"aarch64": "raspberry-pi.txt", "x86_64": "x86-64.txt"}


def main(arguments: list[str] | None = None) -> int:
    """Make a wheel or a bundle; 0 when it is there, 1 when something that a Pi needs cannot be had."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    wheel = commands.add_parser("wheel", help="build the toolkit's wheel in BUILD/wheel")
    collect = commands.add_parser("collect", help="make a bundle in BUILD, with the wheel that is there")
    for command in (wheel, collect):
        command.add_argument("build", type=Path, metavar="BUILD", help="folder for what is made and downloaded")
    collect.add_argument("--machine", choices=sorted(CONSTRAINTS), default="aarch64", help="the Pi's processor (aarch64)")
    collect.add_argument("--python", default="3.13", metavar="X.Y", help="the Pi's version of CPython (3.13)")
    collect.add_argument("--extra", action="append", default=[], metavar="NAME", help="extra of the toolkit; repeatable")
    options = parser.parse_args(arguments)
    if options.command == "wheel":
        print(*build_wheel(options.build / "wheel"))
        return 0
    return make_bundle(options.build, options.machine, options.python, tuple(options.extra))


def build_wheel(folder: Path) -> tuple[str, Path]:
    """Build the toolkit's wheel, which is the same to the byte when the code is; any other one in `folder` goes."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", scratch]
        subprocess.run(build, cwd=ROOT, capture_output=True, check=True)
        (made,) = Path(scratch).glob("*.whl")
        target, data = folder / made.name, made.read_bytes()
    for other in folder.glob("*.whl"):
        if other != target:
            other.unlink()
    if target.is_file() and target.read_bytes() == data:
        return "kept", target
    target.write_bytes(data)
    return "made", target


def make_bundle(build: Path, machine: str, python: str, extras: tuple[str, ...]) -> int:
    """Resolve, download and pack; see `main`."""
    wheel = next((build / "wheel").glob("*.whl"), None)
    if wheel is None:
        print(f"{build}/wheel: there is no wheel of the toolkit; make it first: python -m deploy.bundle wheel {build}")
        return 1
    bundle = build / f"fltestbed-{machine}-python{python}.tar"
    key = bundle_key(wheel, machine, python, extras)
    note = bundle.with_suffix(".json")
    if bundle.is_file() and note.is_file() and json.loads(note.read_text())["made_of"] == key:
        print("kept", bundle)
        return 0
    lock = resolve(python, extras, ROOT / "deploy" / "constraints" / CONSTRAINTS[machine], machine)
    if lock is None:
        return 1
    problems = [f"{finding.name}: {finding.problem}" for finding in audit(lock, python, machine) if finding.problem]
    chosen = [found for package in lock["packages"] if (found := take(package, python, machine)) is not None]
    if problems:
        print("; ".join(problems), file=sys.stderr)
        return 1
    pack(bundle, wheel, _download(build / "downloads", chosen, machine, python))
    note.write_text(json.dumps({"made_of": key}))
    print("made", bundle)
    return 0


def bundle_key(wheel: Path, machine: str, python: str, extras: Iterable[str]) -> str:
    """What the bundle is made of, as one hash."""
    digest = hashlib.sha256(repr((machine, python, sorted(extras))).encode())
    for file in (wheel, ROOT / "pyproject.toml", *sorted((ROOT / "deploy" / "constraints").glob("*.txt"))):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _download(folder: Path, wheels: list[dict[str, Any]], machine: str, python: str) -> list[Path]:
    """Fetch the wheels that are not here yet with pip, which checks their hashes."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {folder / unquote(urlsplit(wheel["url"]).path.rsplit("/", 1)[-1]): wheel for wheel in wheels}
    missing = [
        f"{wheel['url']}#sha256={wheel['hashes']['sha256']}"
        for file, wheel in files.items()
        if not file.is_file() or _sha256(file) != wheel["hashes"]["sha256"]
    ]
    if missing:
        platforms = [f"--platform=manylinux_2_{minor}_{machine}" for minor in range(GLIBC_MINOR, 16, -1)]
        platforms += [f"--platform=manylinux2014_{machine}", f"--platform=linux_{machine}"]
        command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet", "--no-deps"]
        command += ["--only-binary", ":all:", f"--python-version={python}", *platforms, f"--dest={folder}", *missing]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return list(files)


def pack(bundle: Path, toolkit: Path, wheels: list[Path]) -> None:
    """Write the bundle: the same wheels make the same bytes."""
    temporary = bundle.with_suffix(".tmp")
    with tarfile.open(temporary, "w") as archive:
        for name, members in (("requirements.txt", wheels), ("fltestbed.txt", [toolkit])):
            lines = "".join(sorted(f"{_requirement(file)} --hash=sha256:{_sha256(file)}\n" for file in members))
            _add(archive, name, lines.encode())
        for file in sorted([toolkit, *wheels], key=lambda file: file.name):
            _add(archive, file.name, file.read_bytes())
    temporary.replace(bundle)


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o644
    archive.addfile(entry, io.BytesIO(data))


def _requirement(wheel: Path) -> str:
    name, version, *_ = wheel.name.split("-")
    return f"{name}=={version}"


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
