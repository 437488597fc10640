"""Replies that cannot be averaged with the others, found before the strategy meets them.

Flower's strategies that average want of all replies of a round the same arrays in the same shapes, one record of metrics
with the same keys, and weights whose sum is not zero. One reply that is otherwise, by a slip or because somebody means ill,
makes them raise, and ends the run for all. Here such a reply becomes an error reply that says why, and the others are
averaged.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from flwr.app import Array, Message, MetricRecord
from flwr.serverapp.strategy import FedAvg, FedXgbBagging, FedXgbCyclic, Strategy

from fltestbed.flower.folding import WEIGHT_LIMIT, read_array
from fltestbed.text import printable

Layout = dict[str, tuple[tuple[int, ...], np.dtype[Any]]]
"""Shape and type of each array."""
Form = frozenset[tuple[str, tuple[int, ...], bool]]
"""Name, shape and whether it is complex of each array: what replies have to have in common."""


def wants_agreement(strategy: Strategy) -> bool:
    """Whether a strategy is known to need replies that agree, and raises where they do not.

    Known are Flower's own that derive from FedAvg, and take their replies through its check. Trees of XGBoost, which two of
    them gather, are not averaged.
    """
    if not isinstance(strategy, FedAvg) or isinstance(strategy, FedXgbBagging | FedXgbCyclic):
        return False
    names = ("aggregate_train", "aggregate_evaluate", "_check_and_log_replies")
    owners = [vars(strategy), *(vars(kind) for kind in type(strategy).__mro__)]
    return all(
        getattr(step, "__module__", "").startswith("flwr.") or getattr(step, "reads_no_replies", False)
        for step in (owner[name] for owner in owners for name in names if name in owner)
    )


class Agreement:
    """Judges the replies to messages that were sent together.

    Parameters
    ----------
    weighted_by_key : str
        Key of the metric that holds a reply's weight.
    sent : Message or None
        One of the messages, whose arrays those of a reply have to be like; None where replies need no arrays.
    may_differ : bool
        Where no reply is like what was sent, those count that are like most others: what is sent first may be no model yet.
    before : Agreement or None
        That of the round before: replies may be of another type than what was sent. (FedAdam sends float64 from its second
        round on, to apps whose models are float32.)
    """

    def __init__(
        self, weighted_by_key: str, sent: Message | None, *, may_differ: bool = False, before: "Agreement | None" = None
    ) -> None:
        self._may_differ = may_differ
        self._weighted_by_key = weighted_by_key
        self._has_arrays = sent is not None
        self._sent = _layout_of(sent) if sent is not None else None
        self._agreed = self._sent
        if before is not None and _form_of(before._agreed or {}) == _form_of(self._sent or {}):
            self._agreed = before._agreed
        self._expected = self._agreed
        self._layouts: dict[str, Layout] = {}

    def problem(self, reply: Message) -> str | None:
        """Why a reply can be averaged with no others, whatever they are; None if it can."""
        if reply.has_error():
            return None
        return self._problem_of_metrics(reply) or (self._problem_of_arrays(reply) if self._has_arrays else None)

    def _problem_of_metrics(self, reply: Message) -> str | None:
        metrics = list(reply.content.metric_records.values())
        if len(metrics) != 1:
            return f"it has {len(metrics)} records of metrics; strategies that average need one"
        weight = metrics[0].get(self._weighted_by_key)
        if isinstance(weight, int | float) and 0 <= weight < WEIGHT_LIMIT:
            return None
        name, shown = printable(self._weighted_by_key, 60), printable(repr(weight), 40)
        return f"its weight ({name}) is {shown}, and has to be a number from 0 on"

    def _problem_of_arrays(self, reply: Message) -> str | None:
        records = len(reply.content.array_records)
        if records != 1:
            return f"it has {records} records of arrays; strategies that average need one"
        layout = _layout_of(reply)
        if layout is None:
            return "its arrays are not NumPy's"
        self._layouts[reply.metadata.reply_to_message_id] = layout
        return None

    def is_expected(self, reply: Message) -> bool:
        """Whether a reply has the arrays of the message that it answers, of the types that most replies had the round
        before, or else of those that were sent: then it counts, whatever the others are.
        """
        return self._has_arrays and self._layouts.get(reply.metadata.reply_to_message_id) == self._expected

    def settle(self, replies: Sequence[Message]) -> dict[str, str]:
        """Which replies cannot be averaged with the others, by the message that each answers, and why.

        The others are made alike: arrays get the type that most have, records the names, and metrics that not all report are
        taken out.
        """
        left = [reply for reply in replies if not reply.has_error()]
        refused: dict[str, str] = {}
        if self._has_arrays and left:
            forms = [_form_of(self._layouts[reply.metadata.reply_to_message_id]) for reply in left]
            sent = agreed = _form_of(self._sent or {})
            if self._may_differ and not (sent and sent in forms):
                ((agreed, _),) = Counter(forms).most_common(1)
            refused = {
                reply.metadata.reply_to_message_id: "its arrays have other names or shapes than "
                + ("those that were sent" if agreed == sent else "those of most replies")
                for reply, form in zip(left, forms, strict=True)
                if form != agreed
            }
            left = [reply for reply in left if reply.metadata.reply_to_message_id not in refused]
        if not any(_metrics(reply)[self._weighted_by_key] for reply in left):
            return refused | {
                reply.metadata.reply_to_message_id: f"the weights ({self._weighted_by_key}) of all replies are 0"
                for reply in left
            }
        if self._has_arrays:
            self._agreed = self._cast_alike(left)
        _name_alike(left)
        _keep_common(left)
        return refused

    def _cast_alike(self, replies: Sequence[Message]) -> Layout:
        """Of one array in half precision Flower may make half the precision of all, in this round and those to come.

        Returns the arrays that replies have now.
        """
        layouts = [self._layouts[reply.metadata.reply_to_message_id] for reply in replies]
        agreed: Layout = {}
        for key, (shape, _) in layouts[0].items():
            kinds = [layout[key][1] for layout in layouts]
            ((common, _),) = Counter(kinds).most_common(1)
            agreed[key] = shape, common
            for reply, kind in zip(replies, kinds, strict=True):
                record = next(iter(reply.content.array_records.values()))
                if kind == common or not record[key].data:  # its bytes are in the sum already
                    continue
                if (value := read_array(record[key])) is not None:
                    with np.errstate(all="ignore"):
                        record[key] = Array(np.asarray(value.astype(common)))
        return agreed


def _layout_of(message: Message) -> Layout | None:
    """The arrays of a message's first record of arrays; None if one cannot be read."""
    found: Layout = {}
    for record in list(message.content.array_records.values())[:1]:
        for key, array in record.items():
            value = read_array(array)
            if value is None or value.dtype.kind not in "biufc":
                return None
            found[key] = value.shape, value.dtype
    return found


def _form_of(layout: Layout) -> Form:
    return frozenset((key, shape, kind.kind == "c") for key, (shape, kind) in layout.items())


def _metrics(reply: Message) -> MetricRecord:
    return next(iter(reply.content.metric_records.values()))


def _name_alike(replies: Sequence[Message]) -> None:
    for kind in ("array_records", "metric_records"):
        names = [next(iter(getattr(reply.content, kind)), None) for reply in replies]
        ((common, _),) = Counter(names).most_common(1)
        for reply, name in zip(replies, names, strict=True):
            if name is not None and common is not None and name != common:
                reply.content[common] = reply.content.pop(name)


def _keep_common(replies: Sequence[Message]) -> None:
    """Take out of each reply's metrics what some other reply does not have, or has in another form."""
    forms = [{(key, _length(value)) for key, value in _metrics(reply).items()} for reply in replies]
    common = set.intersection(*forms)
    for reply, form in zip(replies, forms, strict=True):
        record = _metrics(reply)
        for key, _ in form - common:
            del record[key]


def _length(value: Any) -> int | None:
    """Of a list; None of a number."""
    return len(value) if isinstance(value, list) else None
