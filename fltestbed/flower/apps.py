"""Flower apps: how one is packed (a FAB), what it names, and how its ClientApp and ServerApp are loaded."""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from flwr.app import Context, Error, Message, RecordDict
from flwr.cli.build import build_fab_from_disk, build_fab_from_files
from flwr.cli.install import install_from_fab
from flwr.clientapp import ClientApp
from flwr.clientapp.utils import get_load_client_app_fn
from flwr.common.config import get_fab_config, get_fused_config_from_fab, get_project_dir
from flwr.common.constant import ErrorCode
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fltestbed import __version__
from fltestbed.errors import ConfigError
from fltestbed.text import printable

INSTALLED_SERVER_APP = "fltestbed.learning.server_app:app"
INSTALLED_CLIENT_APP = "fltestbed.learning.client_app:app"
MOST_FILES = 10_000
MOST_UNPACKED_BYTES = 512 << 20


def pack_installed_app(experiment_json: str) -> bytes:
    """FAB of the apps that come with the toolkit: a pyproject.toml that names installed modules, and nothing else."""
    pyproject = {
        "project": {"name": "fltestbed-experiment", "version": __version__, "description": "Apps of the toolkit itself"},
        "tool": {
            "flwr": {
                "app": {
                    "publisher": "fltestbed",
                    "components": {"serverapp": INSTALLED_SERVER_APP, "clientapp": INSTALLED_CLIENT_APP},
                    "config": {"experiment": experiment_json},
                }
            }
        },
    }
    return build_fab_from_files({"pyproject.toml": tomli_w.dumps(pyproject).encode()})[0]


def pack_app(folder: Path) -> bytes:
    """FAB of a Flower app in a folder, as `flwr build` makes it.

    Raises
    ------
    ConfigError
        The folder holds no Flower app, or one that Flower refuses.
    """
    if not (folder / "pyproject.toml").is_file():
        raise ConfigError(f"{folder}: no pyproject.toml there; --app wants the folder of a Flower app")
    try:
        return build_fab_from_disk(folder)
    except SystemExit as error:  # Flower's command line ends the process
        raise ConfigError(
            f"{folder}: Flower cannot build this app (exit status {error.code}); flwr build says why"
        ) from error
    except Exception as error:
        raise ConfigError(f"{folder}: Flower cannot build this app: {error}") from error


@dataclass(frozen=True)
class App:
    """An app of a run, as Flower packs it.

    Attributes
    ----------
    run_id : int
        Flower's identifier of the run.
    fab_id, fab_version, fab_hash : str
        Publisher and name, version, SHA-256 of `fab`.
    fab : bytes
        The packed app.
    """

    run_id: int
    fab_id: str
    fab_version: str
    fab_hash: str
    fab: bytes


@dataclass(frozen=True)
class AppNames:
    """What a FAB says of itself."""

    client_app: str
    server_app: str
    is_installed_app: bool
    """Whether it brings no code and names the toolkit's own apps: then nothing that the server sent is run."""
    config: dict[str, Any]


def inspect(fab: bytes) -> AppNames:
    """Read what a FAB names, without running anything of it."""
    try:
        names = _list(fab)
        config = get_fab_config(fab)
        components = config["tool"]["flwr"]["app"]["components"]
        client_app, server_app = str(components["clientapp"]), str(components["serverapp"])
        has_code = any(name.endswith((".py", ".so", ".pyc")) for name in names)
    except Exception as error:  # of zipfile, zlib, TOML and Flower, over bytes that anybody may have made
        raise ConfigError(
            f"the app that the server sent cannot be read: {printable(str(error), 200)}; is it a server of fltestbed?"
        ) from error
    own = client_app == INSTALLED_CLIENT_APP and server_app == INSTALLED_SERVER_APP and not has_code
    return AppNames(client_app, server_app, own, config["tool"]["flwr"]["app"].get("config", {}))


def _list(fab: bytes) -> list[str]:
    """Names of the files in a FAB, which together are no larger than an app may be: nothing is inflated before that."""
    with zipfile.ZipFile(io.BytesIO(fab)) as archive:
        files = archive.infolist()
    total = sum(file.file_size for file in files)
    if len(files) > MOST_FILES or total > MOST_UNPACKED_BYTES:
        raise ValueError(f"{len(files)} files of {total} bytes; at most {MOST_FILES} of {MOST_UNPACKED_BYTES} are unpacked")
    return [file.filename for file in files]


def install(app: App) -> Path:
    """Unpack an app below FLWR_HOME; returns its folder."""
    install_from_fab(app.fab, skip_prompt=True)
    return Path(get_project_dir(app.fab_id, app.fab_version, app.fab_hash))


def load_client_app(app: App) -> ClientApp:
    """Load the ClientApp of an app that is installed."""
    return get_load_client_app_fn("", None, True)(app.fab_id, app.fab_version, app.fab_hash)


def client_context(app: App, node_id: int, node_config: dict[str, Any]) -> Context:
    """The one Context that a ClientApp gets during a run; its state outlives the rounds."""
    run = Run.create_empty(app.run_id)
    return Context(
        run_id=app.run_id,
        node_id=node_id,
        node_config=node_config,
        state=RecordDict(),
        run_config=get_fused_config_from_fab(app.fab, run),
    )


def set_identity(run_id: int, node_id: int, task_id: int = 0) -> None:
    """Say whose messages this process makes, as Flower wants to know before one is constructed."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, node_id, task_id


def error_reply(message: Message, reason: str, *, crashed: bool) -> Message:
    """The reply to a message whose ClientApp failed: its process died or hung (`crashed`), or it raised."""
    code = ErrorCode.CLIENT_APP_CRASHED if crashed else ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    return Message(Error(code, reason[:300]), reply_to=message)


def set_creation_time(reply: Message, message: Message, wall_s: float) -> None:
    """Date a reply on the server's wall clock, and let it live as long as the message that it answers.

    Flower refuses replies from before 2025-02-28, or more than 12 h ahead: a Pi without a battery would never be heard.
    """
    reply.metadata.created_at = wall_s
    reply.metadata.ttl = max(1.0, message.metadata.created_at + message.metadata.ttl - wall_s)
