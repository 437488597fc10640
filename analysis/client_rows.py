"""The rows of a timeline that belong to clients, counted and added up by client and round.

A large run has a million of them. Each gets the number of its client and round once; after that everything is arithmetic on
arrays.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.csv_file import REPEATED
from fltestbed.measure.schema import PHASES, SERVER_PHASES, STATUSES

CLIENT_PHASES = tuple(phase for phase in PHASES if phase not in SERVER_PHASES)
"""Phases that one client lives through, in their order."""

_OK = STATUSES.index("ok")

_Floats = NDArray[np.float64]
_Ints = NDArray[np.integer]


@dataclass(frozen=True)
class ClientRows:
    """Rows of a timeline with a client and a round.

    Attributes
    ----------
    index : MultiIndex
        ``round, client``, sorted: one entry a client and round.
    number : array of int
        Place in `index` of each row.
    phase, status, kind : array of int
        Of each row: place in `CLIENT_PHASES` and in `STATUSES` (-1 if it is none of them), number of its message type.
    """

    index: pd.MultiIndex
    number: _Ints
    phase: _Ints
    status: _Ints
    kind: _Ints
    kinds: int
    _names: NDArray[np.object_]
    _keys: _Ints  # of each entry of the index: round times the number of names, plus the place of the name
    _timeline: pd.DataFrame
    _mine: NDArray[np.bool_]

    @classmethod
    def of(cls, timeline: pd.DataFrame) -> Self:
        """Number the rows of a timeline."""
        mine = (timeline["client"].notna() & timeline["round"].notna()).to_numpy(dtype=bool)
        rounds = timeline["round"][mine].to_numpy(dtype=np.int64)
        codes, names = _coded(timeline["client"][mine])
        number, keys = pd.factorize(rounds * max(len(names), 1) + codes, sort=True)
        index = pd.MultiIndex.from_arrays(
            [
                pd.array(keys // max(len(names), 1), dtype="Int64"),
                pd.array(names[keys % max(len(names), 1)], dtype="string"),
            ],
            names=["round", "client"],
        )
        kind, kinds = _coded(timeline["message_type"][mine])
        return cls(
            index,
            number.astype(np.int64),
            _places(timeline["phase"][mine], CLIENT_PHASES),
            _places(timeline["status"][mine], STATUSES),
            kind + 1,  # 0 where there is none
            len(kinds) + 1,
            names,
            keys,
            timeline,
            mine,
        )

    def places(self, table: pd.DataFrame) -> _Ints:
        """Place in `index` of the client and round of each row of another table; -1 if they are not there."""
        codes = table["client"].astype(pd.CategoricalDtype(pd.Index(self._names))).cat.codes.to_numpy()
        known = (codes >= 0) & table["round"].notna().to_numpy(dtype=bool)
        keys = table["round"].to_numpy(dtype=np.int64, na_value=0) * max(len(self._names), 1) + codes
        places = np.searchsorted(self._keys, keys)
        places[places == len(self._keys)] = 0
        return np.where(known & (self._keys[places] == keys), places, -1)

    def first(self, column: str) -> Any:
        """First value that is there, of each client and round."""
        values = self._column(column)
        there = np.flatnonzero(values.notna().to_numpy(dtype=bool))[::-1]
        place = np.full(len(self.index), -1)
        place[self.number[there]] = there  # the earliest is written last
        return values.array.take(place, allow_fill=True)

    def sums(self, column: str) -> pd.DataFrame:
        """Sum of a column by client and round (rows) and phase (columns); NaN where no row has a value."""
        values = self._column(column).to_numpy(dtype=np.float64)
        place = np.where(self.phase >= 0, self.number * len(CLIENT_PHASES) + self.phase, -1)
        sums = added(place, values, len(self.index) * len(CLIENT_PHASES))
        return pd.DataFrame(sums.reshape(-1, len(CLIENT_PHASES)), self.index, list(CLIENT_PHASES))

    def counts(self, phase: str) -> _Ints:
        """How many rows of a phase each client and round has."""
        return np.bincount(self.number[self._is(phase)], minlength=len(self.index))

    def held_ns(self) -> Any:
        """When the last reply was held; NA unless the last reply to each kind of message was accepted."""
        ends = self._column("end_ns")
        collected = np.flatnonzero(self._is("collect") & ends.notna().to_numpy(dtype=bool))
        end_ns = ends.array.to_numpy(dtype=np.int64, na_value=0)
        collected = collected[np.argsort(end_ns[collected], kind="stable")]
        message = self.number * self.kinds + self.kind
        accepted = np.ones(len(self.index) * self.kinds, dtype=bool)
        accepted[message] = False
        accepted[message[collected]] = self.status[collected] == _OK  # of several, the last to end counts
        held = np.zeros(len(self.index), np.int64)
        held[self.number[collected]] = end_ns[collected]
        replied = np.bincount(self.number[collected], minlength=len(self.index)) > 0
        return pd.arrays.IntegerArray(held, ~(replied & accepted.reshape(-1, self.kinds).all(axis=1)))

    def statuses(self, held: NDArray[np.bool_]) -> NDArray[np.object_]:
        """``ok`` where the last reply was held, else the worst that any phase tells, else ``missing``."""
        told = np.full(len(self.index), "missing", dtype=object)
        for name in ("failed", "timeout"):
            told[self.number[self.status == STATUSES.index(name)]] = name
        told[held] = "ok"
        return told

    def goodput_bps(self, phase: str) -> _Floats:
        """Payload bits over seconds of the transfers that ended well; NaN where the seconds are not positive."""
        payload = self._column("payload_bytes").to_numpy(dtype=np.float64, na_value=np.nan)
        lasted_s = self._column("duration_s").to_numpy(dtype=np.float64)
        whole = self._is(phase) & (self.status == _OK) & ~np.isnan(payload)
        size = len(self.index)
        bits = 8 * np.bincount(self.number[whole], payload[whole], size)
        seconds = np.bincount(self.number[whole], np.nan_to_num(lasted_s[whole]), size)
        rates: _Floats = np.divide(bits, seconds, out=np.full(size, np.nan), where=seconds > 0)
        return rates

    def before(self, held: "pd.Series[int]") -> _Floats:
        """Seconds of the client's own phases that ended by the moment at which its reply was held."""
        ends, limits = self._column("end_ns"), held.array.take(self.number)
        lasted_s = self._column("duration_s").to_numpy(dtype=np.float64)
        there = (ends.array <= limits).to_numpy(dtype=bool, na_value=False) & ~np.isnan(lasted_s)
        return np.bincount(self.number[there], lasted_s[there], len(self.index)).astype(np.float64)

    def _column(self, name: str) -> Any:
        return self._timeline[name][self._mine]  # not kept: each is used once or twice

    def _is(self, phase: str) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = self.phase == CLIENT_PHASES.index(phase)
        return found


def added(place: _Ints, values: _Floats, size: int) -> _Floats:
    """Sum of the values at each of `size` places; those that are NaN or at -1 are left out, NaN where none is left."""
    there = (place >= 0) & ~np.isnan(values)
    sums = np.bincount(place[there], values[there], size).astype(np.float64)  # of no value at all they are whole numbers
    sums[np.bincount(place[there], minlength=size) == 0] = np.nan
    return sums


def _places(texts: "pd.Series[Any]", known: tuple[str, ...]) -> _Ints:
    """Place of each text in `known`; -1 if it is not there."""
    codes, names = _coded(texts)
    places = np.array([*(known.index(name) if name in known else -1 for name in names), -1], dtype=np.int8)
    return places[codes]  # the last one is for NA, whose code is -1


def _coded(texts: "pd.Series[Any]") -> tuple[_Ints, NDArray[np.object_]]:
    """Number of each text, -1 for NA, and the texts in the order of their numbers, which is that of the alphabet."""
    repeated = texts.astype(REPEATED)
    return repeated.cat.codes.to_numpy(), repeated.cat.categories.to_numpy(dtype=object)
