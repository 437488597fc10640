"""What `fltestbed bench faults --random` found."""

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from fltestbed.bench.faults.random_faults import CLIENTS, LEAST_ROUNDS, RandomOutcome
from fltestbed.bench.report import Bar, Report, show

ABOUT = (
    f"{CLIENTS} real clients and a server in network namespaces, 5 Mbit/s each, a model of 0.2 MB, 0.4 s of training",
    "each round a fault strikes at a random moment; the next round begins when it was undone, not when its victim is back",
    "test mode: clients keep what they send and the server each round's model, and the average is computed again from the "
    "replies that the run's tables call accepted",
)


@dataclass(frozen=True, kw_only=True)
class RandomReport(Report):
    """One long run under random faults.

    Attributes
    ----------
    seed : int
    outcome : RandomOutcome
    """

    benchmark = "faults-random"
    seed: int
    outcome: RandomOutcome

    def render_findings(self, console: Console) -> None:
        """Print what struck, what was missing, and what does not hold."""
        struck = Table("fault", "struck", title=f"seed {self.seed}", title_justify="left")
        for fault, count in sorted(self.outcome.struck.items()):
            struck.add_row(fault, str(count))
        missing = Table("missing in this phase, with this symptom", "replies")
        for what, count in sorted(self.outcome.missing.items()):
            missing.add_row(what, str(count))
        console.print()
        console.print(struck)
        console.print(missing)
        for reason in self.outcome.reasons:
            show(console, f"does not hold: {reason}", style="red")


def judge(count: int, outcome: RandomOutcome) -> tuple[Bar, ...]:
    """What the run has to show."""
    where = f"{outcome.rounds} rounds, {outcome.sessions} sessions of the server"
    return (
        Bar("faults that struck", where, sum(outcome.struck.values()), count, at_least=True),
        Bar("rounds made whole", where, outcome.rounds, max(LEAST_ROUNDS, count), at_least=True),
        Bar("rounds whose model was computed again", where, outcome.averages, outcome.rounds, at_least=True),
        Bar("what does not hold", where, len(outcome.reasons), 0),
        Bar("replies accepted", where, outcome.replies, None),
        Bar("whole rows that a witness saw", where, outcome.rows, None),
        Bar("the run took", where, outcome.seconds, None, "s"),
    )
