"""Names in an experiment that stand for code: built in, or an installed ``module:object``.

Free of torch, so that an experiment can be judged before torch is there. A name that an experiment brings from the server
is code that the server chooses: whether to load a ``module:object`` is the decision of the host that runs it
(``--trust-apps``), and `is_builtin_model` is what it decides by.
"""

import difflib
import importlib
import importlib.util
import re
from collections.abc import Iterable
from typing import Any

from fltestbed.config import MODULE_OBJECT_PATTERN
from fltestbed.errors import ConfigError

MODELS = ("squeezenet", "resnet18", "mobilenet_v3_small", "cnn")
"""Models that come with the toolkit; `fltestbed.learning.models` builds them."""


def is_builtin_model(name: str) -> bool:
    """Whether `name` is one of the toolkit's own models, which any host may build without further trust."""
    return name in MODELS


def check_model_name(name: str) -> None:
    """Raise `ConfigError` for a name that can be no model, and for a module that this host has not. Imports nothing."""
    if is_builtin_model(name):
        return
    if not is_module_object(name):
        raise unknown_name("model.name", name, MODELS)
    package = re.split(r"[.:]", name)[0]
    if importlib.util.find_spec(package) is None:
        raise ConfigError(f"model.name: {name!r}: no module {package} on this host; install it here and on every client")


def is_module_object(name: str) -> bool:
    """Whether `name` has the form ``module:object``."""
    return re.match(MODULE_OBJECT_PATTERN, name) is not None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean "..."?`` with the closest of `known`, or nothing."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1)
    return f'; did you mean "{by_lower[close[0]]}"?' if close else ""


def unknown_name(key: str, name: str, known: Iterable[str]) -> ConfigError:
    """Make the error for a `name` that is neither one of `known` nor a ``module:object``."""
    allowed = list(known)
    return ConfigError(
        f"{key}: unknown name {name!r}{did_you_mean(name, allowed)}; "
        f"use one of {', '.join(allowed)}, or an installed module:object"
    )


def load_object(key: str, name: str) -> Any:
    """Import the object that ``module:object`` names. This runs code of that module: ask for trust before.

    Raises
    ------
    ConfigError
        The module cannot be imported on this host, or has no such object.
    """
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a module may fail in any way while it is imported
        raise ConfigError(
            f"{key}: {name!r}: importing {module_name} failed on this host: {type(error).__name__}: {error}; "
            "install it on the server and on every client"
        ) from error
    if not hasattr(module, attribute):
        public = [entry for entry in vars(module) if not entry.startswith("_")]
        raise ConfigError(f"{key}: {name!r}: {module_name} has no {attribute}{did_you_mean(attribute, public)}")
    return getattr(module, attribute)
