"""Bundles, made from wheels of the tests' own and without the package index."""

import hashlib
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from deploy import bundle


def make_wheel(folder: Path, name: str, tags: str = "py3-none-any") -> Path:
    file = folder / f"{name}-1.0-{tags}.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{name}.py", "")
        archive.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{name}-1.0.dist-info/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tags}\n")
        archive.writestr(f"{name}-1.0.dist-info/RECORD", "")
    return file


def locked(*wheels: Path) -> dict[str, Any]:
    """A package of a lock that has these wheels."""
    name = wheels[0].name.split("-")[0]
    entries = [
        {"url": file.as_uri(), "hashes": {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}} for file in wheels
    ]
    return {"name": name, "version": "1.0", "wheels": entries}


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """A build folder with a wheel that plays the toolkit's."""
    build = tmp_path / "build"
    (build / "wheel").mkdir(parents=True)
    make_wheel(build / "wheel", "fltestbed")
    return build


def members(file: Path) -> dict[str, bytes]:
    with tarfile.open(file) as archive:
        found = {entry.name: archive.extractfile(entry) for entry in archive}
        return {name: stream.read() for name, stream in found.items() if stream is not None}


def test_a_bundle_has_the_pis_wheels_with_their_hashes(
    build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of each package the wheel of the Pi's processor; a second call asks nothing; another toolkit makes another."""
    arm = make_wheel(tmp_path, "native", "cp313-cp313-manylinux_2_28_aarch64")
    intel = make_wheel(tmp_path, "native", "cp313-cp313-manylinux_2_28_x86_64")
    pure = make_wheel(tmp_path, "pure")
    asked: list[tuple[object, ...]] = []

    def resolve(*question: object) -> dict[str, Any]:
        asked.append(question)
        return {"packages": [locked(intel, arm), locked(pure)]}

    monkeypatch.setattr(bundle, "resolve", resolve)
    assert bundle.make_bundle(build, "aarch64", "3.13", ("digits",)) == 0
    made = build / "fltestbed-aarch64-python3.13.tar"
    assert capsys.readouterr().out == f"made {made}\n"
    found = members(made)
    assert sorted(found) == ["fltestbed-1.0-py3-none-any.whl", "fltestbed.txt", arm.name, pure.name, "requirements.txt"]
    hashes = {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in (("native", arm), ("pure", pure))}
    wanted = {f"{name}==1.0 --hash=sha256:{digest}" for name, digest in hashes.items()}
    assert set(found["requirements.txt"].decode().splitlines()) == wanted
    assert found["fltestbed.txt"].decode().startswith("fltestbed==1.0 --hash=sha256:")

    assert bundle.make_bundle(build, "aarch64", "3.13", ("digits",)) == 0
    assert capsys.readouterr().out == f"kept {made}\n"
    assert len(asked) == 1
    make_wheel(build / "wheel", "fltestbed").write_bytes(b"another")
    assert bundle.make_bundle(build, "aarch64", "3.13", ("digits",)) == 0
    assert capsys.readouterr().out == f"made {made}\n"


def test_a_download_with_another_hash_is_not_packed(build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pip compares what it fetched with the lock, and there is no bundle."""
    package = locked(make_wheel(tmp_path, "pure"))
    package["wheels"][0]["hashes"]["sha256"] = "0" * 64
    monkeypatch.setattr(bundle, "resolve", lambda *_: {"packages": [package]})
    with pytest.raises(subprocess.CalledProcessError, match="pip"):
        bundle.make_bundle(build, "aarch64", "3.13", ())
    assert list(build.glob("*.tar")) == []


def test_a_package_that_a_pi_cannot_have_ends_it(
    build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is named, the status is 1, and nothing is downloaded."""
    lock = {"packages": [locked(make_wheel(tmp_path, "native", "cp313-cp313-manylinux_2_28_x86_64"))]}
    monkeypatch.setattr(bundle, "resolve", lambda *_: lock)
    assert bundle.make_bundle(build, "aarch64", "3.13", ()) == 1
    assert "native: no wheel for its processor and Python" in capsys.readouterr().err
    assert not (build / "downloads").exists()


def test_the_same_wheels_make_the_same_bytes(build: Path, tmp_path: Path) -> None:
    """So a playbook that is run again finds nothing to copy."""
    wheel = make_wheel(tmp_path, "pure")
    (toolkit,) = (build / "wheel").iterdir()
    for name in ("a.tar", "b.tar"):
        bundle.pack(tmp_path / name, toolkit, [wheel])
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
