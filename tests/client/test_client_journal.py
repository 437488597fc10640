"""A client's own copy is whole lines, soon on disk, bounded, and never the run's problem."""

import json
import logging
from pathlib import Path

import pytest

from fltestbed.client.journal import KEPT_RUNS, Journal
from fltestbed.client.stamps import LateStamps
from tests.waiting import wait_until

HEAD = {"run": "r", "run_id": "7", "client": "pi", "link": "5g", "interface": "lo", "transport": "bundle"}


def lines_of(journal: Journal) -> list[dict[str, object]]:
    return [json.loads(line) for line in journal.path.read_text().splitlines() if line]


def test_facts_are_on_disk_while_the_run_goes_on(tmp_path: Path) -> None:
    """Behind the head that says whose they are; nothing has to be closed for it."""
    with Journal(tmp_path / "runs", HEAD) as journal:
        journal.write({"replies": [1]})
        wait_until(lambda: journal.path.exists() and len(lines_of(journal)) == 2)
        assert lines_of(journal) == [HEAD, {"replies": [1]}]
    assert journal.path == tmp_path / "runs" / "r.7.jsonl"


def test_a_client_that_comes_back_goes_on_behind_a_torn_line(tmp_path: Path) -> None:
    """The torn line stays a line of its own: it costs itself alone."""
    (tmp_path / "r.7.jsonl").write_text('{"replies": [1]}\n{"repl')
    with Journal(tmp_path, HEAD) as journal:
        journal.write({"replies": [2]})
    texts = [text for text in journal.path.read_text().split("\n") if text]
    assert texts[:2] == ['{"replies": [1]}', '{"repl']
    assert [json.loads(text) for text in texts[2:]] == [HEAD, {"replies": [2]}]


def test_the_copy_is_bounded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Past its limit nothing is added and one line says so; of older runs' files the oldest go."""
    for number in range(KEPT_RUNS + 3):
        (tmp_path / f"old{number:02}.1.jsonl").touch()
    with caplog.at_level(logging.WARNING), Journal(tmp_path, HEAD, most_bytes=200) as journal:
        journal.write({"system": ["x" * 500]})
    assert "is full at" in caplog.text
    assert not journal.path.exists() or journal.path.stat().st_size <= 200
    assert len(list(tmp_path.glob("old*"))) == KEPT_RUNS - 1


def test_a_copy_that_cannot_be_written_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The run goes on without it."""
    (tmp_path / "runs").touch()
    with caplog.at_level(logging.WARNING), Journal(tmp_path / "runs", HEAD) as journal:
        journal.write({"replies": [1]})
    assert caplog.text.count("own copy cannot be written") == 1


def test_whatever_is_handed_out_is_kept(tmp_path: Path) -> None:
    """The same facts that a request takes along; an empty request leaves no line."""
    kept: list[dict[str, object]] = []
    late = LateStamps(kept.append)
    late.take()
    late.reply({"message_id": "m"})
    late.reading("system", {"raw_ns": 1})
    late.reading("radio", {"raw_ns": 2})
    taken = late.take()
    late.keep_reply({"message_id": "n"})
    assert kept == [taken, {"replies": [{"message_id": "n"}]}]
