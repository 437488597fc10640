"""Nothing that is read can run code: no pickle, marshal or eval anywhere in the packages, and none in what reads arrays."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for folder in ("fltestbed", "analysis", "deploy") for path in (ROOT / folder).rglob("*.py"))
RUNS_CODE = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle"}
EVALUATES = {"eval", "exec"}
UNPICKLES = {"read_pickle", "to_pickle", "recv"}
"""``multiprocessing.connection`` unpickles in ``recv``; ``recv_bytes`` does not. A socket's ``recv`` takes a number."""


def problems(source: str) -> Iterator[str]:
    """What of a module could run code that it has read."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"line {node.lineno}: imports {name}" for name in modules if name.split(".")[0] in RUNS_CODE)
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            owner = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
            said = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if name in UNPICKLES and not (name == "recv" and (node.args or "super" in owner)):
                yield f"line {node.lineno}: calls {owner}.{name}"
            if name in EVALUATES and not owner:  # PyTorch's models have an eval of another kind
                yield f"line {node.lineno}: calls {name}"
            reads_arrays = (owner, name) in {("np", "load"), ("numpy", "load")} or name in ("read_array", "NpzFile")
            if reads_arrays and owner and said.get("allow_pickle") != "False":
                yield f"line {node.lineno}: {owner}.{name} without allow_pickle=False"
            if (owner, name) == ("torch", "load") and said.get("weights_only") != "True":
                yield f"line {node.lineno}: torch.load without weights_only=True"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_module_runs_nothing_that_it_reads(path: Path) -> None:
    """Imports and calls, by name."""
    assert list(problems(path.read_text())) == []


@pytest.mark.parametrize(
    "source",
    ["import pickle", "from cloudpickle import loads", "np.load(file)", "torch.load(f, weights_only=False)", "eval(text)",
     "np.load(file, allow_pickle=True)", "np.lib.format.read_array(stream)", "pipe.recv()", "frame = pd.read_pickle(path)"],
)  # fmt: skip
def test_what_would_run_code_is_found(source: str) -> None:
    """The walk itself: each of these is named."""
    assert len(list(problems(source))) == 1


@pytest.mark.parametrize(
    "source", ["np.load(file, allow_pickle=False)", "sock.recv(4096)", "pipe.recv_bytes()", "json.load(f)"]
)
def test_what_reads_plain_data_is_not(source: str) -> None:
    """Bytes, JSON and arrays of numbers."""
    assert list(problems(source)) == []
