"""A bundle is whole and honest, or it is refused."""

import hashlib
import json
import struct
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import ObjectTree
from hypothesis import given, settings
from hypothesis import strategies as st

from fltestbed.flower.bundle import (
    CHUNK_BYTES,
    MAGIC,
    MAX_PROLOGUE_BYTES,
    Bundle,
    BundleError,
    Decoder,
    Packing,
    decode,
    encode_head,
    read_head,
)
from fltestbed.flower.fleet import MOST_MESSAGE_BYTES
from fltestbed.flower.objects import object_ids
from tests.flower.flower_messages import error_answer, instruction, raw, tensors

bounded = settings(max_examples=100, deadline=None, derandomize=True, database=None)


def arrays_of(message: Message) -> dict[str, Any]:
    record = message.content["arrays"]
    assert isinstance(record, ArrayRecord)
    return {name: array.numpy() for name, array in record.items()}


def parts_of(data: bytes) -> list[int]:
    """Offsets at which a part of a bundle, or the length of one, begins."""
    offsets, at = [0, 4], 4

    def sized(form: str) -> bytes:
        nonlocal at
        size = struct.calcsize(form)
        (length,) = struct.unpack(form, data[at : at + size])
        offsets.extend((at + size, at + size + length))
        part = data[at + size : at + size + length]
        at += size + length
        return part

    for _ in range(json.loads(sized(">I"))["messages"] * 2):
        sized(">I")
    while at < len(data):
        sized(">Q")
    return offsets


def head(prologue: bytes) -> bytes:
    return MAGIC + struct.pack(">I", len(prologue)) + prologue


def test_a_model_of_52_tensors_comes_back_as_it_was() -> None:
    """Names, order, values, metadata and prologue survive; the identifier is the message's object identifier."""
    sent = instruction(7, tensors(52))
    bundle = decode(raw(sent, spans=[1, 2]))
    assert bundle.prologue == {"spans": [1, 2]}
    (received,) = bundle.inflate()
    before, after = arrays_of(sent), arrays_of(received)
    assert list(before) == list(after)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert received.metadata.dst_node_id == 7
    assert received.metadata.message_type == "train"
    assert received.metadata.message_id == sent.object_id == bundle.messages[0][1].object_id


def test_payload_is_everything_but_the_prologue() -> None:
    """4 (magic) + 4 (length) + the prologue's JSON are not payload; all other bytes are."""
    bundle = Bundle.of([instruction(1)], {"a": 1})
    prologue = len('{"a":1,"messages":1}')
    assert bundle.payload_bytes == sum(map(len, bundle.encode())) - 4 - 4 - prologue


def test_the_first_chunk_can_be_made_last() -> None:
    """A reply's first chunk may be replaced by one with another prologue: the rest does not depend on it."""
    chunks = Bundle.of([instruction(1)]).encode()
    bundle = decode(b"".join([encode_head({"late": True}, 1), *chunks[1:]]))
    assert bundle.prologue == {"late": True}
    assert len(bundle.inflate()) == 1


def test_an_error_reply_comes_back_with_its_reason() -> None:
    """A message without content, with an error, is whole."""
    (received,) = decode(raw(error_answer(instruction(1), "no data"))).inflate()
    assert received.has_error()
    assert received.error.reason == "no data"


def test_objects_of_two_messages_are_sent_once() -> None:
    """The second message of the same model adds its own object, its tree and its metadata, but no tensor again."""
    model = tensors(4, 10_000)
    one, both = raw(instruction(1, model)), raw([instruction(1, model), instruction(2, model)])
    assert len(one) > 4 * 40_000
    assert len(both) - len(one) < 10_000
    first, second = decode(both).inflate()
    assert (first.metadata.dst_node_id, second.metadata.dst_node_id) == (1, 2)
    assert all(np.array_equal(arrays_of(first)[name], arrays_of(second)[name]) for name in model)


def test_children_stand_before_their_parents() -> None:
    """The message itself is the last object, and no object is named twice."""
    bundle = Bundle.of([instruction(1)])
    identifiers = object_ids([bundle.messages[0][1]])
    assert identifiers[-1] == bundle.messages[0][1].object_id
    assert len(set(identifiers)) == len(identifiers) == len(bundle.objects)


def test_a_reply_that_cannot_be_inflated_is_an_error_and_costs_no_other() -> None:
    """Objects that fit their hashes and are none of Flower's: that reply says so, the others are whole."""
    good = Bundle.of([instruction(5)])
    junk = b"neither head nor body"
    tree = ObjectTree(object_id=hashlib.sha256(junk).hexdigest())
    proto = ProtoMessage()
    proto.CopyFrom(good.messages[0][0])
    proto.metadata.reply_to_message_id = "asked"
    both = Bundle({}, ((proto, tree), good.messages[0]), {**good.objects, tree.object_id: junk})
    bad, whole = both.inflate_replies()
    assert bad.has_error()
    assert "cannot be inflated" in str(bad.error.reason)
    assert bad.metadata.reply_to_message_id == "asked"
    assert whole.metadata.dst_node_id == 5


def test_a_bundle_that_is_cut_is_refused_wherever_it_is_cut() -> None:
    """Ending at the border of any part, or a byte before or after it, is noticed."""
    data = raw([instruction(1), error_answer(instruction(2))])
    cuts = {max(0, offset + step) for offset in parts_of(data) for step in (-1, 0, 1)}
    assert len(cuts) > 20
    for cut in cuts - {len(data), len(data) + 1}:
        with pytest.raises(BundleError):
            decode(data[:cut])


@pytest.mark.parametrize("size", [1, 7, 1000, 100_000])
def test_a_bundle_that_comes_in_pieces_is_the_same(size: int) -> None:
    """Pieces of any size: the objects are the decoder's own."""
    data = raw([instruction(1, tensors(3, 5000)), error_answer(instruction(2))], a=1)
    decoder = Decoder()
    for start in range(0, len(data), size):
        decoder.feed(data[start : start + size])
    bundle, whole = decoder.end(), decode(data)
    assert (bundle.prologue, bundle.messages, bundle.objects) == (whole.prologue, whole.messages, whole.objects)
    assert all(type(content) is bytes for content in bundle.objects.values())


def test_a_wrong_hash_is_noticed_before_the_rest_has_come() -> None:
    """The first object is damaged: refused with the piece that ends it."""
    data = bytearray(raw(instruction(1, tensors(2, 5000))))
    first = parts_of(bytes(data))[8:10]
    data[first[0] + 100] ^= 1
    decoder = Decoder()
    decoder.feed(data[: first[1] - 1])
    with pytest.raises(BundleError, match="hash"):
        decoder.feed(data[first[1] - 1 : first[1]])


def test_objects_in_place_are_no_copies() -> None:
    """What `decode` gives lies in the data that it was given."""
    data = bytearray(raw(instruction(1, tensors(1, 5000))))
    objects = decode(data, verify=False).objects
    at = data.index(b"ArrayChunk ")
    data[at] ^= 0xFF
    assert any(bytes(content)[0] == ord("A") ^ 0xFF for content in objects.values())


def test_what_nodes_share_is_packed_once() -> None:
    """Two messages of a model: their chunks make whole bundles, and those of the model are the same objects."""
    model = tensors(3, CHUNK_BYTES // 8)
    bundles = [decode(raw(instruction(node, model))) for node in (1, 2)] + [decode(raw(instruction(3)))]
    packing = Packing()
    packed = [packing.chunks(bundle) for bundle in bundles]
    for bundle, chunks in zip(bundles, packed, strict=True):
        again = decode(b"".join([encode_head({}, 1), *chunks]))
        assert (again.messages, again.objects) == (bundle.messages, bundle.objects)
    first, second, third = packed
    assert len(first) > 3
    assert all(one is other for one, other in zip(first[1:-1], second[1:-1], strict=True))
    assert not any(one is other for one in first for other in third)
    (error,) = (decode(raw(error_answer(instruction(1)))),)
    assert decode(b"".join([encode_head({}, 1), *packing.chunks(error)])).objects == error.objects


def test_bytes_after_the_end_are_refused() -> None:
    """A single byte too many is noticed."""
    with pytest.raises(BundleError, match="1 bytes follow"):
        decode(raw(instruction(1)) + b"\0")


def test_a_flipped_bit_in_an_object_is_noticed() -> None:
    """The last byte belongs to the last object; its hash no longer fits."""
    data = bytearray(raw(instruction(1)))
    data[-1] ^= 1
    with pytest.raises(BundleError, match="hash"):
        decode(data)


@pytest.mark.parametrize(
    "prologue",
    [b"", b"{", b"[]", b"7", b"null", b'"messages"', b"\xff\xfe", b'{"messages": 1'],
    ids=["empty", "open", "list", "number", "null", "text", "not-utf8", "cut"],
)
def test_a_prologue_that_is_not_an_object_is_refused(prologue: bytes) -> None:
    """Only a JSON object will do."""
    with pytest.raises(BundleError, match="prologue"):
        decode(head(prologue))


@pytest.mark.parametrize("count", ["-1", "1.0", "true", "null", '"1"', "10001", "1e400", "[1]"])
def test_a_count_of_messages_that_cannot_be_is_refused(count: str) -> None:
    """The count is an integer from 0 to 10,000."""
    with pytest.raises(BundleError, match="how many messages"):
        decode(head(b'{"messages": %s}' % count.encode()))


def test_a_bundle_says_how_many_messages_it_has() -> None:
    """A prologue without the count is refused; a count of none is a bundle without messages."""
    with pytest.raises(BundleError, match="how many messages"):
        decode(head(b"{}"))
    assert decode(head(b'{"messages": 0}')).messages == ()


def test_a_prologue_nested_without_end_is_refused() -> None:
    """A hundred thousand open brackets are not JSON, and no more than that."""
    with pytest.raises(BundleError):
        decode(head(b"[" * 100_000))


def test_announced_lengths_reserve_no_memory() -> None:
    """Lengths of gigabytes in front of nothing are refused as truncated, a large prologue or message as too large."""
    with pytest.raises(BundleError, match=f"at most {MAX_PROLOGUE_BYTES}"):
        decode(MAGIC + struct.pack(">I", 0xFFFFFFFF))
    with pytest.raises(BundleError, match=f"at most {MOST_MESSAGE_BYTES}"):
        decode(head(b'{"messages": 1}') + struct.pack(">I", 0xFFFFFFFF))
    whole = raw(instruction(1))
    first_object = parts_of(whole)[4 + 2 * 2]
    with pytest.raises(BundleError, match="truncated: 18446744073709551615 bytes"):
        decode(whole[: first_object - 8] + struct.pack(">Q", (1 << 64) - 1) + whole[first_object:])


def test_other_bytes_are_not_a_bundle() -> None:
    """The first four bytes say what it is, also to who reads the head alone."""
    for read in (decode, read_head):
        with pytest.raises(BundleError, match="not a bundle"):
            read(b"FLB2" + head(b'{"messages": 0}')[4:])


def test_the_head_is_read_without_the_objects() -> None:
    """What its sender says, and what an answer to the message needs; of what was read nothing is kept."""
    message = instruction(7)
    data = bytearray(raw(message, pull=3))
    prologue, bare = read_head(data)
    data.clear()  # an error while anybody looks at it
    assert prologue == {"pull": 3}
    metadata = bare.metadata
    assert (metadata.message_id, metadata.dst_node_id) == (message.metadata.message_id, message.metadata.dst_node_id)
    assert not bare.content
    with pytest.raises(BundleError, match="no message follows"):
        read_head(head(b'{"messages": 0}'))


def test_a_message_with_neither_content_nor_error_is_refused() -> None:
    """Flower would fail on it later; here it is named."""
    parts = [ProtoMessage().SerializeToString(), ObjectTree().SerializeToString()]
    data = head(b'{"messages": 1}') + b"".join(struct.pack(">I", len(part)) + part for part in parts)
    with pytest.raises(BundleError, match="neither content nor an error"):
        decode(data)


def test_a_message_that_is_not_protobuf_is_refused() -> None:
    """An open field is a parse error."""
    with pytest.raises(BundleError, match="cannot be parsed"):
        decode(head(b'{"messages": 1}') + struct.pack(">I", 1) + b"\x0a" + struct.pack(">I", 0))


def test_a_tree_whose_root_is_not_a_message_is_refused() -> None:
    """Objects that fit their hashes and are no message, are no message."""
    content = b"anything"
    tree = ObjectTree(object_id=hashlib.sha256(content).hexdigest())
    bare = Bundle.of([instruction(1)]).messages[0][0]
    data = b"".join(Bundle({}, ((bare, tree),), {tree.object_id: content}).encode())
    with pytest.raises(BundleError):
        decode(data).inflate()


def test_a_message_that_is_not_its_trees_root_is_refused() -> None:
    """The metadata's identifier and the tree's have to be one, or Flower would look for objects that are not there."""
    one, other = Bundle.of([instruction(1)]), Bundle.of([instruction(2)])
    mixed = Bundle({}, ((one.messages[0][0], other.messages[0][1]),), other.objects)
    with pytest.raises(BundleError):
        decode(b"".join(mixed.encode()))


def test_metrics_survive_as_they_are() -> None:
    """Floats, integers and lists of a MetricRecord come back exactly, NaN and infinity too."""
    message = instruction(1)
    values: dict[str, Any] = {"a": 0.1, "b": 2**40, "c": [1.5, float("inf")], "d": float("nan")}
    message.content["metrics"] = MetricRecord(values)
    received = decode(raw(message)).inflate()[0].content["metrics"]
    assert isinstance(received, MetricRecord)
    assert repr(dict(received)) == repr(values)


@bounded
@given(st.binary(max_size=400))
def test_random_bytes_are_refused_and_never_crash(data: bytes) -> None:
    """Whatever comes after the magic, `decode` returns a bundle or raises BundleError."""
    for candidate in (data, MAGIC + data, head(b'{"messages": 1}') + data):
        try:
            decode(candidate)
        except BundleError:
            continue
        assert candidate.startswith(MAGIC)


@bounded
@given(st.data())
def test_a_damaged_bundle_is_refused_or_whole(data: st.DataObject) -> None:
    """One changed byte anywhere: BundleError, or objects that still fit their names."""
    whole = bytearray(raw(instruction(1)))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] = data.draw(st.integers(0, 255))
    try:
        bundle = decode(whole)
    except BundleError:
        return
    assert all(hashlib.sha256(bytes(content)).hexdigest() == name for name, content in bundle.objects.items())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=5,
)


@bounded
@given(
    prologue=st.dictionaries(st.text().filter(lambda key: key != "messages"), json_values, max_size=4),
    sizes=st.lists(st.integers(0, 50), max_size=4),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_prologue_and_any_arrays_survive(prologue: dict[str, Any], sizes: list[int], seed: int) -> None:
    """What goes in comes out, for all prologues and all shapes."""
    model = {f"layer{number}": tensors(1, size, seed)["layer0"] for number, size in enumerate(sizes)}
    bundle = decode(raw(instruction(3, model or tensors()), **prologue))
    assert bundle.prologue == prologue
    received = arrays_of(bundle.inflate()[0])
    assert all(np.array_equal(received[name], array) for name, array in model.items())
