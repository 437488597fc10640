"""The folder of a benchmark's own Flower app, as `flwr run` and `fltestbed server --app` take it."""

import json
from collections.abc import Mapping
from pathlib import Path

_PYPROJECT = """\
[project]
name = "{name}"
version = "1.0.0"
description = "{description}"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "fltestbed"
flwr-version-target = "1.41.0"

[tool.flwr.app.components]
serverapp = "{server_app}"
clientapp = "{client_app}"

[tool.flwr.app.config]
"""


def make_app_folder(
    folder: Path, name: str, description: str, *, server_app: str, client_app: str, config: Mapping[str, str | int | float]
) -> Path:
    """Make the folder: a pyproject.toml that names the app's parts, as ``module:attribute``, and its run configuration."""
    folder.mkdir()
    text = _PYPROJECT.format(name=name, description=description, server_app=server_app, client_app=client_app)
    lines = (f"{key} = {json.dumps(value)}\n" for key, value in config.items())
    (folder / "pyproject.toml").write_text(text + "".join(lines))
    return folder
