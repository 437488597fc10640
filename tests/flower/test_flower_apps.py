"""Apps are packed as Flower packs them, and read without being run."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message, RecordDict
from flwr.cli.build import build_fab_from_files
from flwr.cli.config_utils import get_fab_metadata

from fltestbed import __version__
from fltestbed.config import Experiment
from fltestbed.config_file import validate
from fltestbed.errors import ConfigError
from fltestbed.flower.apps import (
    INSTALLED_CLIENT_APP,
    INSTALLED_SERVER_APP,
    inspect,
    pack_app,
    pack_installed_app,
    set_creation_time,
)
from tests.flower.flower_messages import answer, instruction
from tests.flower.tiny_app import PYPROJECT, write_app


def zipped(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def resolved(**keys: Any) -> str:
    return json.dumps(validate(Experiment, {"name": "x", **keys}, "x").resolved, separators=(",", ":"))


def test_the_installed_app_has_no_code() -> None:
    """A pyproject.toml and Flower's own list of files; nothing that a client would run comes over the network."""
    fab = pack_installed_app(resolved())
    with zipfile.ZipFile(io.BytesIO(fab)) as archive:
        assert not [name for name in archive.namelist() if name.endswith((".py", ".so", ".pyc", ".sh"))]
    names = inspect(fab)
    assert names.is_installed_app
    assert (names.client_app, names.server_app) == (INSTALLED_CLIENT_APP, INSTALLED_SERVER_APP)
    assert get_fab_metadata(fab) == ("fltestbed/fltestbed-experiment", __version__)
    assert len(fab) < 10_000


def test_the_installed_app_carries_the_experiment() -> None:
    """Exactly as it was resolved, letters of any language and quotes included."""
    text = resolved(strategy={"name": "FedAvg", "arguments": {"note": 'é "quoted" \\ # no comment'}})
    assert inspect(pack_installed_app(text)).config == {"experiment": text}


def test_an_apostrophe_in_the_experiment_survives() -> None:
    """A folder may be called so."""
    text = resolved(data={"path": "/home/o'brien/data"})
    assert inspect(pack_installed_app(text)).config == {"experiment": text}


def test_a_foreign_app_is_not_the_installed_one(tmp_path: Path) -> None:
    """It brings code; its names and its configuration are read without running it."""
    fab = pack_app(write_app(tmp_path / "app", "raise SystemExit"))
    names = inspect(fab)
    assert not names.is_installed_app
    assert (names.client_app, names.server_app) == ("tiny.client:app", "tiny.server:app")
    assert names.config == {"factor": 3.0}
    assert get_fab_metadata(fab) == ("tester/tiny", "1.0.0")


def test_code_under_the_installed_names_is_foreign(tmp_path: Path) -> None:
    """Who names the toolkit's own apps and brings code beside them is not trusted."""
    own = PYPROJECT.replace("tiny.server:app", INSTALLED_SERVER_APP).replace("tiny.client:app", INSTALLED_CLIENT_APP)
    fab = build_fab_from_files({"pyproject.toml": own.encode(), "fltestbed/learning/client_app.py": b"app = None"})[0]
    assert not inspect(fab).is_installed_app
    assert inspect(build_fab_from_files({"pyproject.toml": own.encode()})[0]).is_installed_app


def test_a_folder_without_an_app_is_named(tmp_path: Path) -> None:
    """No pyproject.toml, no such folder, a file: the message has the path and says what --app wants."""
    (tmp_path / "file").touch()
    for folder in (tmp_path, tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(ConfigError, match=rf"{folder}: no pyproject.toml there; --app wants the folder"):
            pack_app(folder)


@pytest.mark.parametrize(
    "pyproject",
    ["", "[project", "[project]\nname = 'x'\nversion = '1'\n", PYPROJECT.replace("tiny.client:app", "nowhere")],
    ids=["empty", "no-toml", "no-app", "bad-reference"],
)
def test_an_app_that_flower_refuses_is_named(tmp_path: Path, pyproject: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Flower's command line would end the process; here it is an error with the folder."""
    (tmp_path / "pyproject.toml").write_text(pyproject)
    with pytest.raises(ConfigError, match=f"{tmp_path}: Flower cannot build this app"):
        pack_app(tmp_path)


@pytest.mark.parametrize(
    "fab",
    [
        b"",
        b"no zip",
        zipped({}),
        zipped({"pyproject.toml": b"[tool"}),
        zipped({"pyproject.toml": b"[tool.flwr]"}),
        zipped({"pyproject.toml": b"\xff\xfe"}),
        pytest.param(zipped({"pyproject.toml": b"tool = 3"})),
    ],
    ids=["nothing", "text", "empty", "no-toml", "no-app", "no-utf8", "other-types"],
)
def test_what_is_no_app_is_an_error(fab: bytes) -> None:
    """Whatever a server sends, the client says in one line that it cannot read it."""
    with pytest.raises(ConfigError, match="the app that the server sent cannot be read"):
        inspect(fab)


def test_a_reply_is_dated_on_the_servers_clock() -> None:
    """Created now, and it lives as long as the message that it answers; at least a second."""
    message = instruction(1)
    message.metadata.created_at, message.metadata.ttl = 1000.0, 60.0
    reply = Message(RecordDict(), dst_node_id=1, message_type="train")
    set_creation_time(reply, message, 1020.0)
    assert (reply.metadata.created_at, reply.metadata.ttl) == (1020.0, 40.0)
    set_creation_time(reply, message, 2000.0)
    assert reply.metadata.ttl == 1.0
    assert answer(message).metadata.reply_to_message_id == message.metadata.message_id
