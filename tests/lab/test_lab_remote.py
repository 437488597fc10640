"""Commands through the real Ansible, on hosts that are this machine, or nobody."""

import json
import os
from pathlib import Path

import pytest

from fltestbed.lab.remote import Remote

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="these hosts become root with su, which asks nobody but root")


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    here = {"ansible_connection": "local", "ansible_become_method": "su", "ansible_python_interpreter": "/usr/bin/python3"}
    nobody = {"ansible_host": "127.0.0.1", "ansible_port": 1}
    file = tmp_path / "lab.yml"
    file.write_text(json.dumps({"pis": {"hosts": {"pi-0": here, "pi-1": here, "pi-2": nobody}}}))
    return Remote(file)


def test_each_host_answers_for_itself(remote: Remote) -> None:
    """A script of its own for each; one that fails and one that cannot be reached leave the others their answers."""
    answers = remote.shell({"pi-0": "echo one; echo two", "pi-1": "echo said; echo why >&2; exit 3", "pi-2": "true"})
    assert (answers["pi-0"].problem, answers["pi-0"].output) == ("", "one\ntwo")
    assert (answers["pi-1"].problem, answers["pi-1"].output) == ("why", "said")
    assert answers["pi-2"].problem.startswith("cannot be reached: ")
    assert "Connection refused" in answers["pi-2"].problem


def test_files_are_fetched_into_a_folder_for_each_host(remote: Remote, tmp_path: Path) -> None:
    """A file that is not there is that host's problem, by its path."""
    (tmp_path / "a.txt").write_text("kept\n")
    answers = remote.fetch({"pi-0": f"{tmp_path}/a.txt", "pi-1": f"{tmp_path}/b.txt"}, tmp_path / "here")
    assert answers["pi-0"].problem == ""
    assert (tmp_path / "here" / "pi-0" / "a.txt").read_text() == "kept\n"
    assert answers["pi-1"].problem == f"pi-1 has no {tmp_path}/b.txt"


def test_a_host_that_hangs_is_given_up(remote: Remote) -> None:
    """After the time that was given, with that time in the message."""
    answers = Remote(remote.inventory, timeout_s=0.1).shell({"pi-0": "true"})
    assert answers["pi-0"].problem == "no answer after 0.1 s"
