"""Who was missing in a round that is not measured: what is known of its replies is that they have arrived."""

from fltestbed.config import Instrumentation
from fltestbed.server.rounds import RoundLog
from fltestbed.server.tasks import Batch, Client
from tests.server.recorded import Rows


class Unmeasured:
    """The messages a and b of a round that is not measured are on their way."""

    def __init__(self) -> None:
        self.rows = Rows()
        self.log = RoundLog(self.rows, 0, Instrumentation(off=True))
        self.gathered: list[Batch] = []
        self.log.watchers.append(self.gathered.append)
        messages = [("a", 1, Client("pi-a", "5g")), ("b", 2, Client("pi-b", "5g"))]
        self.log.sent(1, "train", messages, 100, 200)

    def arrive(self, message_id: str) -> None:
        """A reply is whole; the ServerApp tells nothing of it but an error."""
        task = self.log.task_of(message_id)
        assert task is not None
        self.log.downlink_started(message_id, 250, 1000)
        self.log.uplink_ended(task, 300)
        assert task.held_ns == 300

    @property
    def missing(self) -> list[tuple[object, object]]:
        """Client and symptom of each reply that the round went on without."""
        return [(row["client"], row["symptom"]) for row in self.rows["events.csv"] if row["event"] == "missing"]


def test_replies_that_have_arrived_are_not_missing() -> None:
    """And so no client counts as away, which would not be asked in the next round."""
    unmeasured = Unmeasured()
    unmeasured.arrive("a")
    unmeasured.arrive("b")
    unmeasured.log.gathered(400)
    assert unmeasured.missing == []
    (batch,) = unmeasured.gathered
    assert [task.lost for task in batch.tasks.values()] == [None, None]
    state = unmeasured.log.rounds[1]
    assert (state.replied, state.selected) == (2, 2)


def test_one_that_has_not_come_is() -> None:
    """As in a round that is measured; of the phases there is no row."""
    unmeasured = Unmeasured()
    unmeasured.arrive("a")
    unmeasured.log.gathered(400)
    assert unmeasured.missing == [("pi-b", "silence")]
    assert unmeasured.rows.phases() == []
    assert unmeasured.log.rounds[1].replied == 1


def test_so_is_an_error_reply() -> None:
    """The ServerApp tells of errors in any round."""
    unmeasured = Unmeasured()
    unmeasured.arrive("a")
    unmeasured.arrive("b")
    unmeasured.log.held("b", 350, "ValueError: no")
    unmeasured.log.gathered(400)
    assert unmeasured.missing == [("pi-b", "error reply")]
    assert unmeasured.log.rounds[1].replied == 1
