"""Flower's own objects from somebody who means ill: refused before they take memory, time or code."""

import hashlib
import io
import json
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.constant import HEAD_BODY_DIVIDER
from hypothesis import given, settings
from hypothesis import strategies as st

from fltestbed.bench.fuzz_targets import MOST_INFLATED_BYTES, bundles
from fltestbed.errors import ConfigError
from fltestbed.flower import apps
from fltestbed.flower.bundle import MAX_TREE_BYTES, Bundle, BundleError, decode, encode_head
from fltestbed.flower.screening import ScreeningError, check_arrays
from fltestbed.flower.trees import MOST_OBJECTS, TreeError, check_objects, check_trees, read_head
from tests.flower.flower_messages import instruction, tensors

bounded = settings(max_examples=150, deadline=None, derandomize=True, database=None)
A, B, C = (hashlib.sha256(letter).hexdigest() for letter in (b"a", b"b", b"c"))


def tree(identifier: str, *children: ObjectTree) -> ObjectTree:
    return ObjectTree(object_id=identifier, children=children)


def renamed(bundle: Bundle, change: Callable[[str, bytes], bytes]) -> Bundle:
    """The same bundle with objects changed, and every identifier made to fit again, from the leaves to the message."""
    proto, root = bundle.messages[0]
    names: dict[str, str] = {}
    objects: dict[str, bytes] = {}

    def rebuilt(node: ObjectTree) -> ObjectTree:
        children = [rebuilt(child) for child in node.children]
        content = bytes(bundle.objects[node.object_id])
        for before, after in names.items():
            content = content.replace(before.encode(), after.encode())
        content = change(node.object_id, content)
        names[node.object_id] = hashlib.sha256(content).hexdigest()
        objects[names[node.object_id]] = content
        return ObjectTree(object_id=names[node.object_id], children=children)

    whole = rebuilt(root)
    renewed = type(proto).FromString(proto.SerializeToString())
    renewed.metadata.message_id = whole.object_id
    return Bundle({}, ((renewed, whole),), objects)


def array_content(kind: str, children: list[str], body: bytes) -> bytes:
    return f"{kind} {','.join(children)} {len(body)}".encode() + b"\0" + body


def encoded(bundle: Bundle) -> bytes:
    return b"".join(bytes(piece) for piece in bundle.encode())


def test_an_honest_message_passes() -> None:
    """Every check of this module, and the hashes: a tool of these tests that changes nothing gives the same message."""
    bundle = Bundle.of([instruction(1, tensors(3))])
    same = renamed(bundle, lambda _, content: content)
    assert same.messages[0][1] == bundle.messages[0][1]
    assert len(decode(encoded(same)).inflate()) == 1


def test_an_object_of_a_kind_that_flower_does_not_know_is_refused() -> None:
    """Its own classes could not make anything of it."""
    bundle = Bundle.of([instruction(1, tensors(1))])
    other = renamed(bundle, lambda _, content: content.replace(b"ArrayChunk", b"Pigeonhole", 1))
    with pytest.raises(BundleError, match="is of no kind that Flower knows"):
        decode(encoded(other))


def test_one_chunk_may_not_be_named_a_million_times() -> None:
    """8 kB of numbers, joined 100,000 times, would be 800 MB: refused from the list alone, in less memory than the list."""
    bundle = Bundle.of([instruction(1, tensors(1, 2000))])

    def amplified(_: str, content: bytes) -> bytes:
        kind, children = read_head(content)
        if kind != "Array":
            return content
        body = json.loads(content.split(HEAD_BODY_DIVIDER, 1)[1])
        body["arraychunk_ids"] = [0] * 100_000
        return array_content(kind, children, json.dumps(body).encode())

    bomb = decode(encoded(renamed(bundle, amplified)))
    tracemalloc.start()
    with pytest.raises(BundleError, match=f"more than {MOST_INFLATED_BYTES} bytes when their chunks are joined"):
        bomb.inflate(MOST_INFLATED_BYTES)
    assert tracemalloc.get_traced_memory()[1] < 4e6
    tracemalloc.stop()
    (reply,) = bomb.inflate_replies(MOST_INFLATED_BYTES)
    assert reply.has_error()


def test_an_object_has_the_same_children_everywhere() -> None:
    """A over two B, one without children: built again from a store that keeps the first, it doubles at each level."""
    with pytest.raises(TreeError, match="has other children in another place"):
        check_trees([tree(A, tree(B, tree(C)), tree(B))])
    assert check_trees([tree(A, tree(B, tree(C)), tree(C))]) == {C: (), B: (C,), A: (B, C)}


def test_a_tree_is_what_its_objects_say() -> None:
    """The object names B; a tree that gives it C, or nothing, is refused."""
    contents = {A: array_content("Array", [B], b"{}"), B: array_content("ArrayChunk", [], b""), C: b"no head"}
    check_objects([tree(A, tree(B))], contents)
    for wrong in (tree(A), tree(A, tree(B), tree(B))):
        with pytest.raises(TreeError, match="names other children than its tree"):
            check_objects([wrong], contents)
    with pytest.raises(TreeError, match="begins with no head"):
        check_objects([tree(C)], contents)


@pytest.mark.parametrize("name", ["", "x" * 64, A[:-1], A + "\n", "../../etc/passwd"])
def test_an_identifier_is_a_sha_256(name: str) -> None:
    """Nothing else gets as far as a store, a log or a file."""
    with pytest.raises(TreeError, match="no SHA-256"):
        check_trees([tree(name)])


def length_of(data: bytes) -> bytes:
    """A length as protobuf writes it: seven bits a byte, the lowest first."""
    number, written = len(data), b""
    while number > 127:
        written += bytes([number & 127 | 128])
        number >>= 7
    return written + bytes([number])


def test_trees_are_bounded_in_number_depth_and_bytes() -> None:
    """100,001 leaves; a chain of 200; 65 MB announced."""
    with pytest.raises(TreeError, match=f"more than {MOST_OBJECTS} objects"):
        check_trees([tree(A, *(tree(B) for _ in range(MOST_OBJECTS)))])
    proto = Bundle.of([instruction(1)]).messages[0][0]
    deep = b"\x0a\x40" + A.encode()
    for _ in range(200):  # by hand: protobuf does not write what it would not read
        deep = b"\x0a\x40" + A.encode() + b"\x12" + length_of(deep) + deep
    head = encode_head({}, 1) + struct.pack(">I", len(proto.SerializeToString())) + proto.SerializeToString()
    with pytest.raises(BundleError, match="cannot be parsed"):
        decode(head + struct.pack(">I", len(deep)) + deep)
    with pytest.raises(BundleError, match=f"at most {MAX_TREE_BYTES}"):
        decode(head + struct.pack(">I", MAX_TREE_BYTES + 1))


def numpy_bytes(shape: tuple[int, ...], kind: str = "<f4", numbers: bytes = b"") -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"shape": shape, "fortran_order": False, "descr": kind})
    return file.getvalue() + numbers


def archive() -> bytes:
    file = io.BytesIO()
    np.savez(file, np.zeros(3))
    return file.getvalue()


def pickled() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return file.getvalue()


def message_with(data: bytes) -> Message:
    record = ArrayRecord({"w": Array("float32", (1,), "numpy.ndarray", data)})
    return Message(RecordDict({"arrays": record}), dst_node_id=1, message_type="train")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (pickled(), "no type of numbers"),
        (archive(), "magic string"),
        (pickle.dumps(np.zeros(3)), "magic string"),
        (numpy_bytes((1 << 40,)), "0 bytes of numbers are not of shape"),
        (numpy_bytes((2,), numbers=b"\0" * 7), "7 bytes of numbers are not of shape"),
        (numpy_bytes((-1,), numbers=b""), r"shape \(-1,\) is not one of numbers|not valid"),
        (numpy_bytes((1,), "|S8", b"\0" * 8), "no type of numbers"),
        (numpy_bytes((1,), "<m8[s]", b"\0" * 8), "no type of numbers"),
        (b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 60_000, "max_header_size|EOF|expected"),
        (b"", "EOF|expected"),
    ],
    ids=["objects", "npz", "pickle", "4 TB", "short", "negative", "text", "times", "header", "nothing"],
)
def test_an_array_is_numbers_and_as_many_as_it_says(data: bytes, says: str) -> None:
    """No pickle is read, no archive opened, and no room made for numbers that are not there."""
    with pytest.raises(ScreeningError, match=says):
        check_arrays(message_with(data))
    (reply,) = Bundle.of([message_with(data)]).inflate_replies()
    assert reply.has_error()


def test_flower_itself_reads_no_pickle() -> None:
    """Its own reader and ours, given an array of objects: an error, and nothing of it is run."""

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (pytest.fail, ("a pickle was read",))

    file = io.BytesIO()
    np.save(file, np.array([Bomb()], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        Array("object", (1,), "numpy.ndarray", file.getvalue()).numpy()


def test_an_honest_array_of_any_type_passes() -> None:
    """Empty ones, scalars, Fortran's order, half precision and booleans."""
    arrays = [
        np.zeros(0, np.float32),
        np.float64(1).reshape(()),
        np.asfortranarray(np.eye(3)),
        np.ones(3, "f2"),
        np.ones(2, "?"),
    ]
    record = ArrayRecord({str(number): Array(np.asarray(array)) for number, array in enumerate(arrays)})
    check_arrays(Message(RecordDict({"arrays": record}), dst_node_id=1, message_type="train"))


@bounded
@given(st.sampled_from(range(len(bundles()))), st.data())
def test_a_bundle_with_any_bytes_changed_is_read_or_refused(number: int, data: st.DataObject) -> None:
    """Overwritten, cut out or put in anywhere; hashes unchecked, so that what is behind them is met too."""
    changed = bytearray(bundles()[number])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(changed)))
        piece = data.draw(st.binary(max_size=8))
        changed[at : at + data.draw(st.integers(0, 8))] = piece
    try:
        bundle = decode(bytes(changed), verify=False)
    except BundleError:
        return
    for message in bundle.inflate_replies(MOST_INFLATED_BYTES):
        assert message.has_content() or message.has_error()


@bounded
@given(st.lists(st.dictionaries(st.text(max_size=8), st.floats() | st.integers(-(2**62), 2**62), max_size=4), max_size=3))
def test_what_is_sent_is_what_arrives(values: list[dict[str, float]]) -> None:
    """Metrics of any name and number, NaN and infinities included, through a bundle and back."""
    from flwr.app import MetricRecord  # noqa: PLC0415

    content = RecordDict({str(number): MetricRecord(dict(each)) for number, each in enumerate(values)})
    (received,) = decode(encoded(Bundle.of([Message(content, dst_node_id=1, message_type="query")]))).inflate()
    assert repr(received.content) == repr(content)


def zipped(**files: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in files.items():
            packed.writestr(name, data)
    return file.getvalue()


def test_an_app_that_would_unpack_to_gigabytes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its list of files says how large they are; nothing is inflated before it is read."""
    monkeypatch.setattr(apps, "MOST_UNPACKED_BYTES", 1 << 20)
    bomb = zipped(**{"pyproject.toml": b"[project]\n", "zeros.bin": bytes(16 << 20)})
    assert len(bomb) < 20_000
    tracemalloc.start()
    with pytest.raises(ConfigError, match=r"2 files of 16777226 bytes; at most 10000 of 1048576 are unpacked"):
        apps.inspect(bomb)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("fab", [b"", b"PK\x03\x04", zipped(a=b""), zipped(**{"pyproject.toml": b"\xff\x00= ["})], ids=repr)
def test_what_is_no_app_is_said_to_be_none(fab: bytes) -> None:
    """One line, and a question that helps."""
    with pytest.raises(ConfigError, match="the app that the server sent cannot be read") as told:
        apps.inspect(fab)
    assert str(told.value).isprintable()
