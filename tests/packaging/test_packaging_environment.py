"""What `make env` says on a host that lacks something; the good case is what runs these tests."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONSTRAINTS = "deploy/constraints/x86-64.txt"


class Host:
    """A host of stub programs, found before the real ones."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def program(self, name: str, script: str) -> None:
        """Put a shell script in the place of the program `name`."""
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def make_environment(self, constraints: str = CONSTRAINTS) -> subprocess.CompletedProcess[str]:
        """Run the script of `make env` with the stub python3."""
        command = ["deploy/environment.sh", "python3", str(self.folder / "venv"), constraints, "dev"]
        environment = {**os.environ, "PATH": f"{self.folder}:{os.environ['PATH']}"}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A Debian host as it comes, for an ordinary user: Python without venv, no right to install anything."""
    host = Host(tmp_path)
    host.program("python3", 'case "$2" in *ensurepip*) exit 1;; *print*) echo 3.11;; esac')
    host.program("id", "echo 1000")
    host.program("sudo", "exit 1")
    host.program("apt-get", f'echo "$@" >> {tmp_path}/apt.log')
    return host


def test_an_ordinary_user_without_venv_is_told_the_line_to_run(host: Host) -> None:
    """Nothing is tried without the right to do it: the message holds the whole apt line, and the status is not 0."""
    result = host.make_environment()
    assert result.returncode == 1
    assert "python3 cannot make a virtual environment" in result.stderr
    assert "sudo apt-get update && sudo apt-get install python3.11-venv" in result.stderr
    assert not (host.folder / "apt.log").exists()
    assert not (host.folder / "venv").exists()


def test_with_sudo_without_a_password_the_missing_packages_are_installed(host: Host) -> None:
    """The package lists are renewed first; a package that still is not there afterwards is an error with the same line."""
    host.program("sudo", 'shift; exec "$@"')
    result = host.make_environment()
    calls = (host.folder / "apt.log").read_text().splitlines()
    assert calls[0].endswith("update")
    assert any(call.endswith("install --no-install-recommends python3.11-venv") for call in calls)
    assert result.returncode == 1
    assert "sudo apt-get install python3.11-venv" in result.stderr


def test_a_python_that_is_too_old_is_named(host: Host) -> None:
    """The first check of all: the message names the interpreter and how to give another one."""
    host.program("python3", "exit 1")
    result = host.make_environment()
    assert result.returncode == 1
    assert result.stderr == (
        "env: python3: not Python 3.11 or newer; install one and name it, for example: make env PYTHON=python3.13\n"
    )


def test_a_platform_that_was_not_tested_is_named(host: Host) -> None:
    """There are constraints for the platforms that were tested; on another one the user decides."""
    result = host.make_environment("deploy/constraints/armv7l.txt")
    assert result.returncode == 1
    assert result.stderr.startswith(
        "env: deploy/constraints/armv7l.txt: no such file; tested are x86-64 and a 64-bit Raspberry Pi"
    )
