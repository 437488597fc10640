"""Messages with compressed tensors: what senders keep, what readers get, and what is refused."""

import numpy as np
import pytest
import zstandard
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fltestbed.flower.bundle import Bundle, decode
from fltestbed.flower.compression import STYPE, Compression, CompressionError, relative_error
from fltestbed.flower.quantisation import Codec
from tests.flower.flower_messages import error_answer, instruction, tensors

INT8 = Compression(Codec("int8"))


def arrays(message: Message) -> dict[str, Array]:
    return dict(message.content.array_records["arrays"])


def test_a_message_crosses_as_a_bundle_and_is_whole_again() -> None:
    """Its arrays are numpy's again, of their type and shape and off by half a step of 256 at most; the rest is untouched."""
    sent = instruction(7, tensors(count=3, size=600))
    (packed,) = INT8.compress([sent])
    data = b"".join(Bundle.of([packed], {}).encode())
    (got,) = decode(data).inflate()
    assert {array.stype for array in arrays(got).values()} == {STYPE}
    INT8.restore(got)
    for name, array in arrays(got).items():
        before, after = arrays(sent)[name].numpy(), array.numpy()
        assert (after.dtype, after.shape) == (before.dtype, before.shape)
        assert np.abs(after - before).max() <= np.ptp(before) / 255 * 0.501
    assert got.content["config"] == sent.content["config"]
    assert got.metadata.dst_node_id == 7


def test_the_senders_message_stays_as_it_is_and_gets_its_identifier() -> None:
    """A strategy may keep what it sent: its arrays are whole; Flower's identifier, that of the compressed one, is there."""
    sent = instruction(7)
    (packed,) = INT8.compress([sent])
    assert {array.stype for array in arrays(sent).values()} == {"numpy.ndarray"}
    bundle = Bundle.of([packed], {})
    assert sent.metadata.message_id == bundle.messages[0][0].metadata.message_id


def test_what_messages_share_is_compressed_once() -> None:
    """A hundred messages of one model hold the same compressed arrays, and a bundle of them has each once."""
    content = instruction(1).content
    packed = INT8.compress([Message(content, dst_node_id=node, message_type="train") for node in range(1, 101)])
    assert len({id(message.content["arrays"]) for message in packed}) == 1


def test_without_a_codec_nothing_is_touched() -> None:
    """The very messages come back, so plain runs cost nothing."""
    sent = instruction(7)
    assert Compression().compress([sent])[0] is sent


def test_records_without_arrays_and_errors_pass() -> None:
    """A reply of metrics alone, and an error reply, are what they were before and after."""
    message = instruction(7)
    metrics = Message(RecordDict({"metrics": MetricRecord({"loss": 0.5}), "config": ConfigRecord({})}), reply_to=message)
    for reply in (metrics, error_answer(message)):
        (packed,) = INT8.compress([reply])
        INT8.restore(packed)
        assert packed is reply
        assert relative_error(packed) is None


def test_a_diverged_tensor_crosses_as_it_is_beside_compressed_ones() -> None:
    """NaN is the strategy's to see; the other tensor is compressed all the same."""
    record = ArrayRecord({"bad": Array(np.array([np.nan, 1.0], np.float32)), "good": Array(np.ones(9, np.float32))})
    (packed,) = INT8.compress([Message(RecordDict({"arrays": record}), dst_node_id=1, message_type="train")])
    assert [array.stype for array in arrays(packed).values()] == ["numpy.ndarray", STYPE]
    INT8.restore(packed)
    assert np.isnan(arrays(packed)["bad"].numpy()[0])


def test_the_relative_error_is_over_all_tensors() -> None:
    """One is exact, of norm 3; of the other, 0, 100.4, 255, 0.4 is lost: 0.4 / sqrt(75105.16 + 9)."""
    record = ArrayRecord({
        "exact": Array(np.array([3.0], np.float32)), "rounded": Array(np.array([0.0, 100.4, 255.0], np.float32)),
    })  # fmt: skip
    (packed,) = INT8.compress([Message(RecordDict({"arrays": record}), dst_node_id=1, message_type="train")])
    assert relative_error(packed) == pytest.approx(0.4 / 75114.16**0.5, rel=1e-4)


def bomb(shape: tuple[int, ...], inflated_bytes: int) -> Message:
    """A message of a few kB that says of its one tensor that it has a shape."""
    message = instruction(1)
    head = Codec("none", 1).encode(np.zeros(100, np.float32)) or b""
    data = head[:18] + zstandard.compress(b"\0" * inflated_bytes)
    message.content["arrays"] = ArrayRecord({"w": Array("float32", shape, STYPE, data)})
    return message


def test_tensors_that_would_take_too_much_are_refused_unopened() -> None:
    """400 MB of zeros in 13 kB, honestly announced, where 1 MB is allowed."""
    with pytest.raises(CompressionError, match="would take 400000000 bytes; at most 1000000 are allowed"):
        Compression(Codec(), 1_000_000).restore(bomb((100_000_000,), 4))


def test_a_frame_that_inflates_to_more_than_its_shape_is_refused() -> None:
    """The shape says 400 bytes, the frame 64 MB."""
    with pytest.raises(CompressionError, match="announces 67108864 bytes where 400 belong"):
        Compression(Codec(), 1_000_000).restore(bomb((100,), 64 << 20))
