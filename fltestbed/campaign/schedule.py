"""The order of a campaign's runs.

The order is of randomised complete blocks: a block is one repetition of every condition, and the conditions are shuffled
within each block. What drifts over hours (the machine's temperature, the radio) then meets every condition alike, and the
part of a campaign that is done is balanced to within one run. Each block is shuffled with a generator of its own, made from
the campaign's seed and the repetition: more repetitions later do not change the order of the first ones.
"""

import random
from dataclasses import dataclass
from typing import Any

from fltestbed.campaign.plan import Condition, Plan, run_name


@dataclass(frozen=True)
class PlannedRun:
    """One run of a campaign.

    Attributes
    ----------
    name : str
        Of the run and its folder.
    condition : Condition
    repetition : int
        From 1; also the number of the block.
    place : int
        In the order of the whole campaign, from 1.
    """

    name: str
    condition: Condition
    repetition: int
    place: int


def schedule(plan: Plan) -> tuple[PlannedRun, ...]:
    """All runs in the order in which they are to be made."""
    repetitions = plan.campaign.repetitions
    runs: list[PlannedRun] = []
    for repetition in range(1, repetitions + 1):
        block = list(plan.conditions)
        random.Random(f"{plan.campaign.seed}/{repetition}").shuffle(block)
        for condition in block:
            runs.append(PlannedRun(run_name(condition, repetition, repetitions), condition, repetition, len(runs) + 1))
    return tuple(runs)


def manifest_entry(plan: Plan, run: PlannedRun) -> dict[str, Any]:
    """What the manifest of a run says of its campaign."""
    campaign = plan.campaign
    return {
        "name": campaign.name,
        "levels": run.condition.levels,
        "repetition": run.repetition,
        "repetitions": campaign.repetitions,
        "place": run.place,
        "places": len(plan.conditions) * campaign.repetitions,
        "order": "randomised complete blocks: one repetition of each condition, shuffled within",
        "seed": campaign.seed,
        "published": campaign.published,
    }
