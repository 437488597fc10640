"""Runs of the real command line over emulated links, shared by the tests that look at their folders."""

import json
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from analysis.derive import derive
from analysis.load import Run, load_run
from fltestbed.bench.leftovers import left_over as left_over  # noqa: PLC0414  # for tests
from fltestbed.bench.leftovers import marked as marked  # noqa: PLC0414

APPS = Path(__file__).parent / "apps"
TIMEOUT_S = 180.0


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: int
    out: str
    err: str


def fltestbed(*arguments: object, prefix: tuple[str, ...] = ()) -> Outcome:
    """Run the command line to its end; no process that it started may be left."""
    mark, environment = marked()
    command = [*prefix, sys.executable, "-m", "fltestbed", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment, check=False)
    assert left_over(mark) == []
    return Outcome(done.returncode, done.stdout, done.stderr)


def write_experiment(folder: Path, **keys: Any) -> Path:
    """Write an experiment; a dictionary becomes a table."""
    lines = ['name = "test"']
    lines += [f"{key.replace('_', '-')} = {json.dumps(value)}" for key, value in keys.items() if not isinstance(value, dict)]
    for table, entries in keys.items():
        if isinstance(entries, dict):
            lines.append(f"[{table}]")
            lines += [f"{key.replace('_', '-')} = {json.dumps(value)}" for key, value in entries.items()]
    file = folder / "experiment.toml"
    file.write_text("\n".join(lines) + "\n")
    return file


def numpy_app(folder: Path, **config: object) -> Path:
    """A copy of the plain Flower app with another default configuration."""
    app = folder / "numpy_app"
    shutil.copytree(APPS / "numpy_app", app)
    pyproject = app / "pyproject.toml"
    text = pyproject.read_text()
    head, _, defaults = text.partition("[tool.flwr.app.config]\n")
    lines = {line.partition(" = ")[0]: line for line in defaults.splitlines()}
    for key, value in config.items():
        lines[key.replace("_", "-")] = f"{key.replace('_', '-')} = {json.dumps(value)}"
    pyproject.write_text(head + "[tool.flwr.app.config]\n" + "\n".join(lines.values()) + "\n")
    return app


def run_over(link: str, folder: Path, clients: int, rounds: int) -> Run:
    """The plain Flower app, whose clients send 2.9 MB each over a shaped link."""
    config = write_experiment(folder, clients=clients)
    app = numpy_app(folder, num_server_rounds=rounds, parameters=727_624)
    done = fltestbed("run", config, "--link", link, "--app", app, "--runs", folder, "--name", link)
    assert done.status == 0, done.out + done.err
    return derive(load_run(folder / link))


@pytest.fixture(scope="session")
def app_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three clients and three rounds over switched Ethernet."""
    return run_over("ethernet", tmp_path_factory.mktemp("app"), clients=3, rounds=3)


@pytest.fixture(scope="session", params=["5g", "wifi", "ethernet"])
def shaped_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run over each medium; the one over Ethernet is `app_run`."""
    if request.param == "ethernet":
        run: Run = request.getfixturevalue("app_run")
        return run
    return run_over(request.param, tmp_path_factory.mktemp("shaped"), clients=2, rounds=2)


def free_port() -> int:
    """A port on the loopback that nobody uses now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
