"""The library that makes a disk slow: what it delays, and that it counts it."""

import subprocess
import sys
from pathlib import Path

import pytest

from fltestbed.bench.slow_disk import DiskSpeed, DiskUse, SlowDisk

CALLS = """\
import os, sys
from pathlib import Path
folder = Path(sys.argv[1])
with (folder / "rows.csv").open("wb", buffering=0) as file:
    file.write(bytes(1_000_000))
    os.pwrite(file.fileno(), b"ab", 0)
    os.writev(file.fileno(), [b"ab", b"cd"])
    os.fdatasync(file.fileno())
    os.fsync(file.fileno())
(folder / "rows.csv").replace(folder / "new.csv")
(folder / "new.csv").unlink()
print((folder / "new.csv").exists(), flush=True)
"""
SPEED = DiskSpeed(write_ms=2, sync_ms=10, rate_mb_s=20)


def use_after(disk: SlowDisk, folder: Path, code: str = CALLS) -> dict[str, DiskUse]:
    """What the disk saw of a process that works in `folder`; standard output is a pipe, which is no disk."""
    command = [sys.executable, "-c", code, str(folder)]
    assert subprocess.run(command, env=disk.environment, check=True, capture_output=True, text=True).stdout in {
        "",
        "False\n",
    }
    return disk.use()


@pytest.fixture
def disk(tmp_path: Path) -> SlowDisk:
    """A disk for the folders `run` and `state`."""
    for name in ("own", "run", "running", "state"):
        (tmp_path / name).mkdir()
    return SlowDisk(tmp_path / "own", {"run folder": tmp_path / "run", "client-0": tmp_path / "state"}, SPEED)


def test_each_call_is_delayed_and_counted(disk: SlowDisk, tmp_path: Path) -> None:
    """Three writes of 2 ms, two syncs of 10 ms and a megabyte at 20 MB/s, a rename, a removal: 96 ms in the main thread."""
    disk.switch.write_bytes(b"\1" + disk.switch.read_bytes()[1:])
    use = use_after(disk, tmp_path / "run")
    found = {kind: (count.calls, count.delayed) for kind, count in use["run folder"].counts.items()}
    assert found == {"write": (3, 3), "sync": (2, 2), "rename": (2, 2)}
    delays = {kind: count.delay_s for kind, count in use["run folder"].counts.items()}
    least = {"write": 3 * 0.002, "sync": 2 * 0.010 + 1_000_006 / 20e6, "rename": 2 * 0.010}
    assert all(delays[kind] >= least[kind] for kind in least), delays
    assert use["run folder"].main_thread_s == pytest.approx(use["run folder"].delay_s)
    assert use["client-0"].delayed == 0


def test_a_fast_disk_delays_nothing_and_counts_all_the_same(disk: SlowDisk, tmp_path: Path) -> None:
    """Without the switch the calls are seen, and nobody waits."""
    use = use_after(disk, tmp_path / "state")
    assert {kind: (count.calls, count.delayed) for kind, count in use["client-0"].counts.items()} == {
        "write": (3, 0), "sync": (2, 0), "rename": (2, 0),
    }  # fmt: skip
    assert use["client-0"].delay_s == use["client-0"].main_thread_s == 0.0


def test_other_folders_are_left_alone(disk: SlowDisk, tmp_path: Path) -> None:
    """A folder whose name begins with a watched one's is another folder."""
    disk.switch.write_bytes(b"\1" + disk.switch.read_bytes()[1:])
    use = use_after(disk, tmp_path / "running")
    assert [count.calls for name in use for count in use[name].counts.values()] == [0] * 6


def test_a_disk_does_one_thing_at_a_time(disk: SlowDisk, tmp_path: Path) -> None:
    """Eight threads that sync at once wait 10, 20, ... 80 ms: 360 ms together, less what they came apart. Main waits not."""
    disk.switch.write_bytes(b"\1" + disk.switch.read_bytes()[1:])
    code = """
import os, sys, threading
from pathlib import Path
at_once = threading.Barrier(8)
def sync(number):
    with (Path(sys.argv[1]) / str(number)).open("wb") as file:
        at_once.wait()
        os.fsync(file.fileno())
threads = [threading.Thread(target=sync, args=(number,)) for number in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    use = use_after(disk, tmp_path / "run", code)["run folder"]
    assert use.counts["sync"].delayed == 8
    assert use.delay_s > 8 * 0.010 * 1.5  # each alone would have waited 10 ms
    assert use.main_thread_s == 0.0
