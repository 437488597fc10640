"""The one place that imports torchvision: take it from here, never directly.

torchvision's x86-64 wheel on the package index is a CUDA build. Beside a CPU-only torch its compiled operators do not load,
and then torchvision's own import fails with "operator torchvision::nms does not exist", although models, data sets and
transforms need none of them. Declaring the schemas of the two operators that it insists on makes the import work. Where the
wheels match, as on a Raspberry Pi, nothing is declared.
"""

import importlib.util
from pathlib import Path

import torch

_SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_declared: list[torch.library.Library] = []  # a schema lives as long as its Library object


def _operators_load() -> bool:
    """Whether torchvision's compiled operators fit the installed torch; loading them twice does no harm."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return True  # the import below says what is wrong
    try:
        for library in sorted(Path(spec.origin).parent.glob("_C*.so")):
            torch.ops.load_library(library)  # type: ignore[no-untyped-call]  # PyTorch
    except OSError:
        return False
    return True


def _declare_schemas() -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]  # PyTorch
    for name, schema in _SCHEMAS.items():
        library.define(name + schema)  # type: ignore[no-untyped-call]  # PyTorch
    _declared.append(library)


if not _operators_load():
    _declare_schemas()

import torchvision  # noqa: E402 - the schemas have to be declared first

__all__ = ["torchvision"]
