"""A real client whose stamps and figures are garbage: the command `fltestbed client`, with the lies that it tells."""

import math
from itertools import count
from typing import Any

from fltestbed.cli import main
from fltestbed.client.stamps import LateStamps
from fltestbed.client.trainer import Result, Trainer

YEAR_NS = 365 * 86_400 * 10**9

truth_of_late, truth_of_work = LateStamps.take, Trainer.work
replies = count(1)


def take(self: LateStamps) -> dict[str, Any]:
    """Round trips of 1e30 s, a CPU that is not a number, and clock samples of another year."""
    late = truth_of_late(self)
    for transfer in late["transfers"]:
        if "tcp" in transfer:
            transfer["tcp"]["rtt_s"] = 1e30
    for reading in late["system"]:
        reading["cpu_percent"] = math.nan
    for sample in late["clock_samples"][1::2]:
        sent, received, answered, back = sample["stamps"]
        sample["stamps"] = (sent, received + YEAR_NS, answered + YEAR_NS, back)
    return late


def work(self: Trainer, *arguments: Any, **named: Any) -> Result:
    """In the second reply a negative stamp, in the third a year of training."""
    result = truth_of_work(self, *arguments, **named)
    number = next(replies)
    if number == 2:
        result.facts["called_raw_ns"] = -5
    if number == 3:
        result.facts["returned_raw_ns"] += YEAR_NS
    return result


LateStamps.take, Trainer.work = take, work  # type: ignore[method-assign]
main()
