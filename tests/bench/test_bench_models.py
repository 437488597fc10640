"""The models that benchmarks send."""

import numpy as np
import pytest

from fltestbed.bench.models import SIZES, fresh_weights


@pytest.mark.parametrize(
    ("name", "tensors", "parameters"), [("tiny", 4, 4_810), ("small", 52, 727_626), ("large", 62, 11_181_642)]
)
def test_sizes_are_those_of_the_networks(name: str, tensors: int, parameters: int) -> None:
    """Squeezenet 1.1 and ResNet-18 with ten classes have so many tensors and float32 parameters."""
    size = SIZES[name]
    assert len(size.shapes) == tensors
    assert size.model_bytes == 4 * parameters


def test_weights_are_new_each_time() -> None:
    """Two draws have the shapes that were asked for and share no tensor."""
    first, second = (fresh_weights(SIZES["tiny"].shapes) for _ in range(2))
    assert [array.shape for array in first] == list(SIZES["tiny"].shapes)
    assert {array.dtype for array in first} == {np.dtype(np.float32)}
    assert not any(np.array_equal(one, other) for one, other in zip(first, second, strict=True))
