"""A configuration file: found by its name, read, and checked against its model.

Every key is kebab-case, as in Flower's own configuration. An unknown key, a wrong type and a value out of range are all
reported at once, each with the file, the key, the value and what is allowed.
"""

import difflib
import json
import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from fltestbed.errors import ConfigError

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""What a run, a client or a link may be called: safe as a file name, a CSV cell and a column of a table."""

T = TypeVar("T", bound=BaseModel)


def _kebab(name: str) -> str:
    return name.replace("_", "-")


class Section(BaseModel):
    """A table of the file: frozen, kebab-case, no key that is not known."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=_kebab, populate_by_name=False, allow_inf_nan=False
    )


def check_name(option: str, name: str) -> str:
    """Return a name from the command line if it is safe as a file name and a cell, or raise `ConfigError`."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise ConfigError(f"{option} {name}: letters, digits, dots, dashes and underscores alone, 64 at most")
    return name


def find_config(path: Path | str, kind: str) -> Path:
    """Find a configuration file: as given, or by its name among the shipped ones of `kind` (".", "links")."""
    given = Path(path)
    if given.suffix == ".toml" or given.is_file():
        if not given.is_file():
            raise ConfigError(
                f"{given}: there is no such file; give the path of a TOML file, or a shipped name without .toml"
            )
        return given
    shipped = shipped_configs() / kind
    candidate = shipped / f"{given}.toml"
    if len(given.parts) == 1 and candidate.is_file():
        return candidate
    names = sorted(file.stem for file in shipped.glob("*.toml"))
    raise ConfigError(f"{given}: neither a file nor a shipped name ({', '.join(names)}){_did_you_mean(str(given), names)}")


def shipped_configs() -> Path:
    """The folder `configs` that comes with the toolkit, in a checkout or in an installed wheel."""
    package = Path(__file__).parent
    for folder in (package.parent / "configs", package / "configs"):
        if (folder / "demo.toml").is_file():
            return folder
    raise ConfigError(f"{package}: the shipped configurations are missing; install fltestbed again")


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file, with its name and the place of a mistake in the error."""
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}; mend the line") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; give a file that you may read") from error


def read_json(path: Path) -> Any:
    """Read a JSON file that the toolkit has written."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error


def validate(model: type[T], data: dict[str, Any], source: str) -> T:
    """Check `data` against `model`; every problem becomes a line ``source: key: ...`` of one `ConfigError`."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError("\n".join(_problem(model, source, problem) for problem in error.errors())) from error


def _problem(model: type[BaseModel], source: str, problem: Any) -> str:
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location) or "(whole file)"
    if problem["type"] == "extra_forbidden":
        known = _known_keys(model, location[:-1])
        hint = _did_you_mean(location[-1], known)
        return f"{source}: {key}: unknown key{hint}; known here: {', '.join(known)}"
    message = problem["msg"].removeprefix("Value error, ").replace("a valid tuple", "a list")
    if problem["type"] == "missing":
        return f"{source}: {key}: missing; it is required"
    return f"{source}: {key}: {message[0].lower()}{message[1:]}, not {problem['input']!r}"


def _known_keys(model: type[BaseModel], location: list[str]) -> list[str]:
    """Keys of the table at `location`, as they are written in the file."""
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    if not location:
        return sorted(fields)
    field = fields.get(location[0])
    candidates = [] if field is None else [field.annotation, *get_args(field.annotation)]
    for candidate in candidates:
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return _known_keys(candidate, location[1:])
    return _known_keys(model, location[1:]) if location else []


def _did_you_mean(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f'; did you mean "{close[0]}"?' if close else ""
