"""What is used of Flower's internals is there, is listed, and is used in one package alone."""

import ast
import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flwr.app
import flwr.client
import flwr.clientapp
import flwr.common
import flwr.server
import flwr.server.strategy
import flwr.serverapp
import flwr.serverapp.strategy
import pytest
from flwr.app import Message, RecordDict

from fltestbed.flower.internals import USED

PACKAGE = Path(__file__).parents[2] / "fltestbed"
PUBLIC = {
    module.__name__: frozenset(module.__all__)
    for module in (
        *(flwr.app, flwr.clientapp, flwr.serverapp, flwr.serverapp.strategy),
        *(flwr.client, flwr.common, flwr.server, flwr.server.strategy),  # deprecated: the benchmarks' older contenders
    )
}
ENTRY = re.compile(r"(?P<path>[\w.]+)(\((?P<parameter>\w+)\))?")


def imports() -> Iterator[tuple[str, str, str]]:
    """Each name of Flower that is imported and not public: file below the package, module, name."""
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "flwr":
                for alias in node.names:
                    if alias.name not in PUBLIC.get(node.module or "", ()):
                        yield str(file.relative_to(PACKAGE)), node.module or "", alias.name
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.split(".")[0] == "flwr" and alias.name not in PUBLIC:
                        yield str(file.relative_to(PACKAGE)), alias.name, ""


def resolve(module: str, entry: str) -> None:
    """Find what an entry names, or raise AttributeError."""
    match = ENTRY.fullmatch(entry)
    assert match, f"{module}: {entry}: not an entry"
    found: Any = importlib.import_module(module)
    for part in match["path"].split("."):
        found = member(found, part)
    if match["parameter"] and match["parameter"] not in inspect.signature(found).parameters:
        raise AttributeError(f"parameter {match['parameter']}")


def member(owner: Any, name: str) -> Any:
    """An attribute, a field of a protobuf message or of a dataclass, or a property of a metaclass."""
    fields = getattr(getattr(owner, "DESCRIPTOR", None), "fields_by_name", None)
    if fields is not None:
        if name not in fields:
            raise AttributeError(name)
        return fields[name]
    if dataclasses.is_dataclass(owner) and name in {field.name for field in dataclasses.fields(owner)}:
        return name
    if isinstance(inspect.getattr_static(type(owner), name, None), property):
        return name
    return getattr(owner, name)


@pytest.mark.parametrize(("module", "entry"), [(module, entry) for module, names in USED.items() for entry in names])
def test_the_installed_flower_has_what_is_used(module: str, entry: str) -> None:
    """Each name is in the release of Flower that is installed; what is gone is named."""
    try:
        resolve(module, entry)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"Flower {importlib.metadata.version('flwr')} has no {module}.{entry} any more: {error}")


def test_a_name_that_is_gone_is_noticed() -> None:
    """A missing module, name, member, field, dataclass field and parameter are all failures."""
    for module, entry in (
        ("flwr.supercore.constant", "NO_SUCH_HEADER"),
        ("flwr.server.superlink.linkstate", "LinkState.no_such_method"),
        ("flwr.proto.message_pb2", "Metadata.no_such_field"),
        ("flwr.supercore.run", "Run.no_such_field"),
        ("flwr.supercore.task_identity", "TaskIdentity.no_such_id"),
        ("flwr.superlink.main", "create_app(no_such_parameter)"),
    ):
        with pytest.raises(AttributeError):
            resolve(module, entry)
    with pytest.raises(ImportError):
        resolve("flwr.no_such_module", "name")


def test_every_import_of_an_internal_is_listed() -> None:
    """What the package imports of Flower's internals stands in USED."""
    listed = {(module, entry.split(".")[0].split("(")[0]) for module, names in USED.items() for entry in names}
    assert {(module, name) for _, module, name in imports()} - listed == set()


def test_nothing_is_listed_that_is_not_used() -> None:
    """Each module of USED is public or imported, and each member of it appears in the package's source."""
    imported = {module for _, module, _ in imports()}
    assert USED.keys() - imported - PUBLIC.keys() == set()
    source = "\n".join(file.read_text() for file in PACKAGE.rglob("*.py") if file.name != "internals.py")
    words = set(re.findall(r"\w+", source)) | {"__call__"}
    ignored = {"GetNodesResponse", "PullTaskInputResponse", "ObjectStore", "Metadata", "ObjectTree", "message"}
    positional = {
        "config",
        "superlink_lifespan_class",
        "default_app_ref",
        "app_path",
        "multi_app",
        "message_ins_ids",
        "children",
        "object_contents",
    }
    names = {word for entries in USED.values() for entry in entries for word in re.findall(r"\w+", entry)}
    assert names - words - ignored - positional == set()


def test_internals_are_imported_in_one_package_alone() -> None:
    """Outside of fltestbed/flower no module imports an internal."""
    outside = {(file, module) for file, module, _ in imports() if not file.startswith("flower/")}
    assert outside == set()


def test_a_message_keeps_its_identifier_where_it_is_written() -> None:
    """`Metadata.message_id` reads the entry of the object's dictionary that the bundle sets."""
    message = Message(RecordDict(), dst_node_id=1, message_type="train")
    message.metadata.__dict__["_message_id"] = "abc"
    assert message.metadata.message_id == "abc"


def test_a_message_can_be_dated() -> None:
    """Creation time and time to live can be set, which makes up for a Pi that booted in the past."""
    message = Message(RecordDict(), dst_node_id=1, message_type="train")
    message.metadata.created_at, message.metadata.ttl = 1_750_000_000.0, 60.0
    assert (message.metadata.created_at, message.metadata.ttl) == (1_750_000_000.0, 60.0)


def test_telemetry_and_update_check_are_off() -> None:
    """Importing the package switches both off, before anything of Flower is imported."""
    import os  # noqa: PLC0415

    import fltestbed.flower  # noqa: F401, PLC0415

    assert os.environ["FLWR_TELEMETRY_ENABLED"] == "0"
    assert os.environ["FLWR_DISABLE_UPDATE_CHECK"] == "1"
