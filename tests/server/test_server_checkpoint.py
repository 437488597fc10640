"""A checkpoint is whole or it is not there, and brings a strategy back to the last bit."""

import io
import json
import os
import random
import subprocess
import threading
import tracemalloc
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideAdaptiveClipping,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedXgbBagging,
    FedYogi,
    Strategy,
)
from flwr.supercore.task_identity import TaskIdentity

from fltestbed.clock import SYSTEM_CLOCK
from fltestbed.config import EarlyStopping
from fltestbed.errors import RunFolderError, TestbedError
from fltestbed.flower.strategy_state import NotCovered, Snapshot, restore, snapshot
from fltestbed.learning.early_stopping import Watch
from fltestbed.server import checkpoint
from fltestbed.server.checkpoint import Checkpoint, CheckpointWriter, find, load, save
from tests.flower.flower_messages import instruction, tensors
from tests.waiting import wait_until

STATELESS = Snapshot({}, {}, ())
IDLE = threading.Event()
IDLE.set()


class Nodes:
    """All that a strategy asks of a Grid."""

    def get_node_ids(self) -> list[int]:
        """Two nodes are online."""
        return [1, 2]


def model(seed: int = 0) -> ArrayRecord:
    return ArrayRecord({name: Array(array) for name, array in tensors(3, 50, seed).items()})


def replies(round_: int) -> Iterable[Message]:
    """What two clients made of the model in a round."""
    for node in (1, 2):
        TaskIdentity.node_id = 1
        sent = instruction(node)
        TaskIdentity.node_id = node
        metrics = MetricRecord({"num-examples": node, "loss": 0.5})
        yield Message(RecordDict({"arrays": model(10 * round_ + node), "metrics": metrics}), reply_to=sent)


def play(strategy: Strategy, rounds: Iterable[int], arrays: ArrayRecord) -> ArrayRecord:
    """Aggregate some rounds as Flower's loop does; returns the model."""
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
    for round_ in rounds:
        list(strategy.configure_train(round_, arrays, ConfigRecord(), Nodes()))  # type: ignore[arg-type]
        aggregated, _ = strategy.aggregate_train(round_, list(replies(round_)))
        assert aggregated is not None
        arrays = aggregated
    return arrays


def same(one: ArrayRecord, other: ArrayRecord) -> bool:
    return list(one) == list(other) and all(one[name].data == other[name].data for name in one)


def copied(folder: Path, given: Checkpoint) -> Checkpoint:
    return load(save(folder, given))


@pytest.mark.parametrize(
    "make",
    [
        FedAvg,
        FedAdam,
        FedYogi,
        lambda: FedAvgM(server_learning_rate=0.5, server_momentum=0.9),
        lambda: DifferentialPrivacyServerSideAdaptiveClipping(FedAdam(), noise_multiplier=0.1, num_sampled_clients=2),
    ],
)
def test_a_strategy_goes_on_as_if_nothing_had_happened(tmp_path: Path, make: Callable[[], Strategy]) -> None:
    """Two rounds, a checkpoint on the disk, another strategy of the same arguments, two more rounds: bit for bit the model
    of four rounds in a row, with the noise of differential privacy and the strategy that it wraps.
    """
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002  # Flower's noise comes from there
    whole = play(make(), (1, 2, 3, 4), model())
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    first = make()
    arrays = play(first, (1, 2), model())
    state = snapshot(first)
    kept = copied(tmp_path, Checkpoint(2, arrays, state))
    random.seed(99)
    np.random.seed(99)  # noqa: NPY002
    second = make()
    restore(second, kept.state.tree, kept.state.blobs)
    assert same(play(second, (3, 4), kept.arrays), whole)
    assert state.left_out == ()


def test_every_kind_of_state_comes_back(tmp_path: Path) -> None:
    """Numbers, texts, bytes, arrays of any order and size, records, generators, and containers of those with their types."""
    strategy: Any = FedAvg()
    strategy.given = {
        "int": 1 << 80, "float": 0.1, "none": None, "text": "ä", "bytes": b"\0\xff", "scalar": np.float32(0.1),
        "array": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "empty": np.zeros((0, 3)), 5: (1, [2, {3}]),
        "records": [MetricRecord({"loss": 0.5}), ConfigRecord({"lr": 0.1, "name": "a"}), model()], "nan": float("nan"),
    }  # fmt: skip
    strategy.own = np.random.default_rng(7)
    strategy.older = random.Random(7)
    strategy.own.random(3)
    strategy.older.random()
    kept = copied(tmp_path, Checkpoint(1, model(), snapshot(strategy)))
    expected = strategy.own.random(), strategy.older.random()
    other: Any = FedAvg()
    other.own, other.older = np.random.default_rng(8), random.Random(8)
    restore(other, kept.state.tree, kept.state.blobs)
    assert (other.own.random(), other.older.random()) == expected
    given, back = strategy.given, other.given
    assert list(back) == list(given)
    assert [type(back[key]) for key in back] == [type(given[key]) for key in given]
    for key in ("int", "float", "none", "text", "bytes", "scalar", 5):
        assert back[key] == given[key]
    np.testing.assert_array_equal(back["array"], given["array"])
    assert back["empty"].shape == (0, 3)
    assert [dict(record) for record in back["records"][:2]] == [{"loss": 0.5}, {"lr": 0.1, "name": "a"}]
    assert same(back["records"][2], model())


def test_what_is_not_covered_is_named() -> None:
    """An object, a thread's lock, an array of objects, also in a container or in the strategy that another wraps; functions
    are no state.
    """
    inner: Any = FedAvg()
    inner.optimizer = object()
    outer: Any = DifferentialPrivacyServerSideAdaptiveClipping(inner, 0.1, 2)
    outer.held = {"lock": threading.Lock()}
    outer.objects = np.array([{}], dtype=object)
    outer.function = lambda: None
    assert set(snapshot(outer).left_out) == {"strategy.optimizer", "held", "objects"}


def test_a_snapshot_is_a_copy() -> None:
    """A strategy that changes its arrays in place afterwards does not change what was kept."""
    strategy: Any = FedAvg()
    strategy.moment = np.zeros(3)
    kept = snapshot(strategy)
    strategy.moment += 1
    restore(strategy, kept.tree, kept.blobs)
    np.testing.assert_array_equal(strategy.moment, np.zeros(3))


def test_the_state_of_another_strategy_is_refused() -> None:
    """The names of both classes are in the message."""
    kept = snapshot(FedAvg())
    with pytest.raises(NotCovered, match="state of FedAvg, and the app has made FedAdam"):
        restore(FedAdam(), kept.tree, kept.blobs)


def test_patience_of_early_stopping_is_kept(tmp_path: Path) -> None:
    """A run that goes on does not wait for `patience` rounds anew."""

    def watched() -> tuple[FedAvg, Watch]:
        strategy, watch = FedAvg(), Watch(EarlyStopping(metric="loss", patience=3), 10)
        watch.observe(strategy)
        return strategy, watch

    strategy, watch = watched()
    assert not watch.patience.update(0.5)
    assert not watch.patience.update(0.6)
    kept = copied(tmp_path, Checkpoint(2, model(), snapshot(strategy)))
    assert kept.state.left_out == ()
    other, resumed = watched()
    restore(other, kept.state.tree, kept.state.blobs)
    assert (resumed.patience.best, resumed.patience.rounds) == (0.5, 1)


def test_xgboost_trees_are_kept(tmp_path: Path) -> None:
    """FedXgbBagging holds its model as bytes."""
    strategy = FedXgbBagging()
    strategy.current_bst = b"\0trees"
    kept = copied(tmp_path, Checkpoint(1, model(), snapshot(strategy)))
    other = FedXgbBagging()
    restore(other, kept.state.tree, kept.state.blobs)
    assert other.current_bst == b"\0trees"


def test_the_last_two_are_kept_and_numpy_reads_them(tmp_path: Path) -> None:
    """Each holds the model as Flower has it, arrays that no NumPy array is included, and opens without pickle."""
    odd = ArrayRecord({"a/../b": Array(np.ones(2)), "odd": Array(dtype="bf16", shape=(1,), stype="other", data=b"??")})
    for round_ in (1, 2, 9, 10):
        save(tmp_path, Checkpoint(round_, odd, STATELESS))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert [name[:12] for name in names] == ["round-000009", "round-000010"]
    newest = find(tmp_path)
    assert (newest.round, newest.damaged) == (10, ())
    assert newest.path is not None
    assert same(load(newest.path).arrays, odd)
    np.testing.assert_array_equal(np.load(newest.path, allow_pickle=False)["model/a/../b"], np.ones(2))


def test_a_checkpoint_has_its_name_when_all_of_it_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that loses its power at any moment has the old ones, or the new one whole: the bytes come to the disk before
    the name does, the name before an old one goes.
    """
    for round_ in (1, 2):
        save(tmp_path, Checkpoint(round_, model(), STATELESS))
    seen: list[tuple[str, list[str]]] = []
    sync = os.fsync

    def note(descriptor: int) -> None:
        sync(descriptor)
        file = Path(f"/proc/self/fd/{descriptor}").readlink()
        seen.append((file.name, sorted(path.name[:12] + path.suffix for path in tmp_path.iterdir())))

    monkeypatch.setattr(os, "fsync", note)
    save(tmp_path, Checkpoint(3, model(), STATELESS))
    old = ["round-000001.npz", "round-000002.npz"]
    assert seen == [
        ("round-000003.unfinished", [*old, "round-000003.unfinished"]), (tmp_path.name, [*old, "round-000003.npz"]),
    ]  # fmt: skip
    assert find(tmp_path).round == 3


def test_every_flipped_bit_and_every_cut_is_seen(tmp_path: Path) -> None:
    """The damaged one is named, and the one before is taken."""
    save(tmp_path, Checkpoint(1, model(), STATELESS))
    path = save(tmp_path, Checkpoint(2, model(), STATELESS))
    whole = path.read_bytes()
    for at in range(0, len(whole), len(whole) // 50):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert (find(tmp_path).round, find(tmp_path).damaged) == (1, (path.name,))
        path.write_bytes(whole[:at])
        assert find(tmp_path).round == 1
    path.write_bytes(whole)
    assert find(tmp_path).round == 2


def test_pickle_is_never_read(tmp_path: Path) -> None:
    """A checkpoint from elsewhere whose array is a pickle, under a name that fits it: refused, and nothing is run."""
    path = save(tmp_path, Checkpoint(1, model(), Snapshot({}, {"state/0": np.zeros(1)}, ())))
    evil = tmp_path / "evil.npz"
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
            return Path.touch, (ran,)

    np.save(tmp_path / "pickle.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(evil, "w") as target:
        for name in source.namelist():
            target.writestr(name, (tmp_path / "pickle.npy").read_bytes() if name == "state/0.npy" else source.read(name))
    with pytest.raises(RunFolderError, match="not a checkpoint: Object arrays cannot be loaded"):
        load(evil)
    assert not ran.exists()


def repacked(path: Path, target: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    """A checkpoint with other members in the place of its own."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w", method) as archive:
        for name in source.namelist():
            archive.writestr(name, members.get(name) or source.read(name))
    return target


def test_a_checkpoint_takes_no_more_memory_than_it_is_large(tmp_path: Path) -> None:
    """Compressed members, a header that promises terabytes, nested brackets without end: refused, and little was held."""
    path = save(tmp_path, Checkpoint(1, model(), Snapshot({}, {"state/0": np.zeros(1)}, ())))
    huge = io.BytesIO()
    np.lib.format.write_array_header_1_0(huge, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40,)})
    zeros = {"state/0.npy": bytes(50 << 20)}
    evil = [
        (repacked(path, tmp_path / "a.npz", zeros, zipfile.ZIP_DEFLATED), "a member of it is compressed"),
        (repacked(path, tmp_path / "b.npz", {"state/0.npy": huge.getvalue() + bytes(8)}), "8 bytes are no array of shape"),
        (repacked(path, tmp_path / "c.npz", {"about.json": b"[" * 100_000}), ""),
        (repacked(path, tmp_path / "d.npz", {"about.json": b"[]"}), ""),
    ]
    tracemalloc.start()
    for file, says in evil:
        with pytest.raises(RunFolderError, match=f"not a checkpoint: .*{says}"):
            load(file)
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("name", ["aggregate_train", "__class__", "__dict__", "start"])
def test_no_state_takes_the_place_of_a_method(name: str) -> None:
    """What an object of the class holds is put back; what the class does is not to be replaced."""
    taken = snapshot(FedAvg())
    taken.tree["attributes"][name] = 5
    with pytest.raises(NotCovered, match=f"{name} is no attribute that holds state"):
        restore(FedAvg(), taken.tree, taken.blobs)


def test_a_newer_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to do."""
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    path = save(tmp_path, Checkpoint(1, model(), STATELESS))
    monkeypatch.undo()
    with pytest.raises(RunFolderError, match=r"newer fltestbed \(format 2\); upgrade"):
        load(path)
    path.write_text("nothing")
    with pytest.raises(RunFolderError, match="not a checkpoint"):
        load(path)


def test_the_writer_writes_the_latest_and_says_how_long_it_took(tmp_path: Path) -> None:
    """What a killed process has left half written is removed; of many that come at once the last is there at the end."""
    (tmp_path / "round-000001.unfinished").write_bytes(b"half")
    writer = CheckpointWriter(tmp_path, SYSTEM_CLOCK, IDLE)
    for round_ in range(1, 21):
        writer.put(Checkpoint(round_, model(), STATELESS))
    writer.close()
    written = list(writer.take_written())
    assert [each.round for each in written] == sorted({each.round for each in written})
    assert written[-1].round == find(tmp_path).round == 20
    assert all(each.seconds > 0 and each.bytes > 600 for each in written)
    assert not list(tmp_path.glob("*.unfinished"))


def test_the_writer_waits_for_an_idle_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three rounds that are over before there is one, the last is written then; at the end nothing is waited for."""
    monkeypatch.setattr(checkpoint, "PATIENCE_S", 3600.0)
    idle = threading.Event()
    writer = CheckpointWriter(tmp_path, SYSTEM_CLOCK, idle)
    for round_ in (1, 2, 3):
        writer.put(Checkpoint(round_, model(), STATELESS))
    writer._thread.join(0.1)  # which is long enough for all three
    assert not list(tmp_path.iterdir())
    idle.set()
    wait_until(lambda: find(tmp_path).round == 3)
    idle.clear()
    writer.put(Checkpoint(4, model(), STATELESS))
    writer.close()
    assert [written.round for written in writer.take_written()] == [3, 4]


def test_a_busy_process_is_waited_for_so_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It never waits for replies, and its checkpoint is written all the same."""
    monkeypatch.setattr(checkpoint, "PATIENCE_S", 0.01)
    writer = CheckpointWriter(tmp_path, SYSTEM_CLOCK, threading.Event())
    writer.put(Checkpoint(1, model(), STATELESS))
    wait_until(lambda: find(tmp_path).round == 1)
    writer.close()


def test_a_disk_without_room_is_said_and_what_was_there_stays(tmp_path: Path) -> None:
    """Nothing half is left; the writer raises with the next round, and at the end."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=False).returncode:
        pytest.skip("this user may not mount")
    try:
        writer = CheckpointWriter(disk / "checkpoints", SYSTEM_CLOCK, IDLE)
        save(disk / "checkpoints", Checkpoint(1, model(), STATELESS))
        writer.put(Checkpoint(2, ArrayRecord([np.ones(1 << 16)]), STATELESS))
        writer._thread.join(10)
        with pytest.raises(TestbedError, match="checkpoint cannot be written: No space left on device; make room"):
            writer.put(Checkpoint(3, model(), STATELESS))
        with pytest.raises(TestbedError, match="No space left"):
            writer.close()
        assert find(disk / "checkpoints").round == 1
        assert len(list((disk / "checkpoints").iterdir())) == 1
    finally:
        subprocess.run(["umount", disk], check=True)


def test_state_is_json(tmp_path: Path) -> None:
    """Everything but arrays stands in about.json, where people can read it."""
    path = save(tmp_path, Checkpoint(1, model(), snapshot(FedAvg())))
    with zipfile.ZipFile(path) as archive:
        about = json.loads(archive.read("about.json"))
    assert (about["format"], about["round"], about["state"]["class"]) == (1, 1, "FedAvg")
    assert about["state"]["attributes"]["weighted_by_key"] == "num-examples"
