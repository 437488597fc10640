"""Commands on the lab's hosts, through Ansible: it knows how to reach them and how to become root there."""

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from fltestbed.lab.ansible import find
from fltestbed.scratch import scratch_folder

CONNECT_TIMEOUT_S = 10
TIMEOUT_S = 180.0


@dataclass(frozen=True)
class Answer:
    """What became of a command on one host.

    Attributes
    ----------
    problem : str
        Why it failed, in one line; empty if it did not.
    output : str
        What it printed.
    """

    problem: str
    output: str = ""


@dataclass(frozen=True)
class Remote:
    """Hosts of one inventory.

    Attributes
    ----------
    inventory : Path
    timeout_s : float
        After this, a host that has not answered counts as failed.
    """

    inventory: Path
    timeout_s: float = TIMEOUT_S

    def shell(self, scripts: Mapping[str, str]) -> dict[str, Answer]:
        """Run a script for /bin/sh as root on each host, on all at once; what each answered, by host."""
        return self._call("ansible.builtin.shell", {"cmd": "{{ of_host[inventory_hostname] }}"}, scripts)

    def fetch(self, files: Mapping[str, str], folder: Path) -> dict[str, Answer]:
        """Copy a file of each host to ``FOLDER/HOST/NAME``."""
        target = f"{folder}/{{{{ inventory_hostname }}}}/"
        arguments = {"src": "{{ of_host[inventory_hostname] }}", "dest": target, "flat": True}
        answers = self._call("ansible.builtin.fetch", arguments, files)
        there = {host: (folder / host / PurePosixPath(file).name).is_file() for host, file in files.items()}
        return {  # a file that is missing over there is no failure to Ansible
            host: answer if answer.problem or there[host] else Answer(f"{host} has no {files[host]}")
            for host, answer in answers.items()
        }

    def _call(self, module: str, arguments: dict[str, Any], of_host: Mapping[str, str]) -> dict[str, Answer]:
        with scratch_folder("ansible") as tree:
            command = [
                find("ansible"),
                "--inventory",
                str(self.inventory),
                ":".join(of_host),
                "--become",
                "--tree",
                str(tree),
            ]
            command += ["--timeout", str(CONNECT_TIMEOUT_S), "--forks", str(len(of_host))]
            command += ["--module-name", module, "--args", json.dumps(arguments)]
            command += ["--extra-vars", json.dumps({"of_host": dict(of_host)})]
            environment = {**os.environ, "ANSIBLE_DEPRECATION_WARNINGS": "0", "ANSIBLE_SSH_PIPELINING": "1"}
            try:
                done = subprocess.run(
                    command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                    timeout=self.timeout_s, check=False,
                )  # fmt: skip
                said = (done.stderr.strip() or done.stdout.strip())[-500:]
            except subprocess.TimeoutExpired:
                said = f"no answer after {self.timeout_s:g} s"
            return {name: _read(tree / name, said) for name in of_host}


def _read(file: Path, said: str) -> Answer:
    """A host's answer; without one, what Ansible said."""
    try:
        result = json.loads(file.read_text())
    except (OSError, ValueError):
        return Answer(_line(said) or "Ansible said nothing of it")
    output = str(result.get("stdout") or "")
    if result.get("unreachable"):
        return Answer(f"cannot be reached: {_line(str(result.get('msg')))}", output)
    if result.get("failed") or result.get("rc", 0) != 0:
        return Answer(_line(str(result.get("stderr") or output or result.get("msg"))), output)
    return Answer("", output)


def _line(text: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
