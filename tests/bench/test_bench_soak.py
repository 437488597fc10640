"""The soak's judgement of hand-made looks, and how it follows a growing file."""

from pathlib import Path

from fltestbed.bench.soak import CLIENTS, SERVER_APP, SUPERLINK, Look, _looked_at, _Rounds, judge


def test_what_grows_without_end_is_missed() -> None:
    """From round 100 to 1,000: 9 MB are more than a client may grow, and less than the SuperLink's 8 + 900 x 2 kB."""
    before = Look(100_000_000, 40, 12)
    after = Look(109_000_000, 44, 12)
    bars = judge({100: {SUPERLINK: before, CLIENTS: before}, 1000: {SUPERLINK: after, CLIENTS: after}})
    assert [(bar.what, bar.figure, bar.limit, bar.holds) for bar in bars] == [
        ("SuperLink: more resident memory", 9.0, 9.8, True),
        ("SuperLink: more open files", 4, 4, True),
        ("SuperLink: more threads", 0, 4, True),
        ("clients: more resident memory", 9.0, 8.0, False),
        ("clients: more open files", 4, 4, True),
        ("clients: more threads", 0, 4, True),
    ]


def test_less_is_no_growth() -> None:
    """A pool that gave its threads back holds its bar."""
    (memory, files, threads) = judge({1: {SERVER_APP: Look(9, 9, 9)}, 2: {SERVER_APP: Look(5, 5, 5)}})
    assert (memory.figure, files.figure, threads.figure) == (-4e-6, -4, -4)
    assert memory.holds
    assert files.holds
    assert threads.holds


def test_it_looks_at_round_100_and_the_last() -> None:
    """And at each tenth between them; a short run is looked at in its middle and at its end."""
    assert _looked_at(1000) == list(range(100, 1001, 100))
    assert _looked_at(2) == [1, 2]


def test_a_growing_file_is_read_once(tmp_path: Path) -> None:
    """The latest round of whole lines; the header and a torn line are none, and nothing is read twice."""
    file = tmp_path / "phases.csv"
    rounds = _Rounds(file)
    assert rounds.latest() == 0
    file.write_bytes(b"run,round,client\nr,7,a\nr,8")
    assert rounds.latest() == 7
    with file.open("ab") as more:
        more.write(b",a\nr,6,a\n")
    assert rounds.latest() == 8
    assert rounds.latest() == 8
