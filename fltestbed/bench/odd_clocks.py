"""Clients whose clocks are odd, and what their stamps are in truth.

Time namespaces shift a process's monotonic clocks, RAW included (`unshare --time`); a small library that is loaded before
libc makes RAW drift and the wall clock step, for one process and what it starts. The truth is known exactly in both.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fltestbed.bench.preload import compile_library
from fltestbed.bench.testbed import Oddity

Stamps = TypeVar("Stamps", int, "pd.Series[int]", "NDArray[np.int64]")

_SOURCE = """\
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static long long number(const char *name) { const char *text = getenv(name); return text ? atoll(text) : 0; }

static void add(struct timespec *at, long long ns) {
    long long all = at->tv_sec * 1000000000LL + at->tv_nsec + ns;
    at->tv_sec = all / 1000000000LL;
    at->tv_nsec = all % 1000000000LL;
}

int clock_gettime(clockid_t which, struct timespec *at) {
    static int (*next)(clockid_t, struct timespec *);
    static long long since, ppm, step;
    static const char *step_file;
    static int stepped;
    if (!next) {
        since = number("ODD_SINCE_NS"); ppm = number("ODD_DRIFT_PPM");
        step_file = getenv("ODD_STEP_FILE"); step = number("ODD_STEP_NS");
        next = dlsym(RTLD_NEXT, "clock_gettime");
    }
    int failed = next(which, at);
    if (failed) return failed;
    if (which == CLOCK_MONOTONIC_RAW && ppm)
        add(at, (at->tv_sec * 1000000000LL + at->tv_nsec - since) / 1000000 * ppm);
    if (which == CLOCK_REALTIME && step) {
        stepped = stepped || access(step_file, F_OK) == 0;
        if (stepped) add(at, step);
    }
    return 0;
}
"""


@dataclass(frozen=True)
class OddClock:
    """One client's clock.

    Attributes
    ----------
    name : str
        For the report.
    shift_s : int
        Its raw clock is ahead of this machine's by so much.
    drift_ppm : int
        It runs faster by so much, from `since_ns` on.
    step_s : int
        Its wall clock jumps by so much when `step_file` is there.
    step_file : Path or None
        Holds this machine's raw clock of that moment, in ns, as text.
    """

    name: str
    shift_s: int = 0
    drift_ppm: int = 0
    since_ns: int = 0
    step_s: int = 0
    step_file: Path | None = None

    def truth_ns(self, client_raw_ns: Stamps) -> Stamps:
        """What this machine's raw clock showed when the client's showed that; to a microsecond and 100 ppm of one."""
        unshifted = client_raw_ns - self.shift_s * 1_000_000_000
        if not self.drift_ppm:
            return unshifted
        gone = unshifted - self.since_ns
        return unshifted - gone * self.drift_ppm // (1_000_000 + self.drift_ppm)

    def oddity(self, library: Path) -> Oddity:
        """How a client is started so."""
        if self.shift_s:
            shift = str(self.shift_s)
            return Oddity(prefix=("unshare", "--time", "--monotonic", shift, "--boottime", shift, "--kill-child", "--"))
        return Oddity(
            environment={
                "LD_PRELOAD": str(library),
                "ODD_SINCE_NS": str(self.since_ns),
                "ODD_DRIFT_PPM": str(self.drift_ppm),
                "ODD_STEP_FILE": str(self.step_file or ""),
                "ODD_STEP_NS": str(self.step_s * 1_000_000_000),
            }
        )


def build_library(folder: Path) -> Path:
    """Compile the library.

    Raises
    ------
    HostError
        There is no C compiler, or it failed.
    """
    return compile_library(folder, "odd_clocks", _SOURCE, "clocks that drift are made")
