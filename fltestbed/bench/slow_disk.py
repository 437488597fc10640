"""A disk that is slow while a switch says so: a small library before libc, and what it did.

What a process writes, syncs, renames or removes below the watched folders waits as for a poor disk. Each folder stands for
the disk of one host, which does one thing at a time: who comes while it is busy waits until it is free.

- A write takes `write_ms`. Linux seldom lets a write into its page cache wait; here each one does, as if it came upon a
  journal that commits, or a page on its way to the disk. 5 ms is longer than a write of a card of class A1 may take on
  average (500 random writes a second; SD Specification 5.1).
- A sync, a rename and a removal take `sync_ms` (an NFS server commits the latter two before it answers; RFC 1813). 50 ms is
  between the 2 to 6 ms that fdatasync and fsync were seen to take on a consumer's SSD and the 250 ms for which an SD card
  may be busy after one write (SD Physical Layer Specification, 4.6.2.2).
- A sync takes as well what all that was written to the disk since the last one needs at `rate_mb_s`; 10 is the sequential
  rate of a card of class 10 or A1.

The library and whoever started it share a page of memory: the switch, and counts of what was watched and what was delayed.
"""

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fltestbed.bench.preload import compile_library

KINDS = ("write", "sync", "rename")
"""The last one with removals."""
MOST_FOLDERS = 8
_HEAD = struct.Struct("Q")
_DISK = struct.Struct("12Q")
_PAGE_BYTES = 4096

_SOURCE = """\
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum kind { WRITE, SYNC, RENAME, KINDS };
typedef atomic_ullong number;
struct disk { number free_at_ns, unsynced_bytes, main_ns; struct { number calls, delayed, delay_ns; } of[KINDS]; };
struct page { number is_slow; struct disk disks[8]; };

static struct page *page;
static const char *folders[8];
static int watched;
static unsigned long long write_ns, sync_ns, bytes_per_s;

__attribute__((constructor)) static void begin(void) {
    const char *file = getenv("SLOW_DISK_PAGE"), *list = getenv("SLOW_DISK_FOLDERS");
    int opened = file ? open(file, O_RDWR | O_CLOEXEC) : -1;
    if (opened < 0 || !list) return;
    void *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, opened, 0);
    close(opened);
    if (shared == MAP_FAILED) return;
    sscanf(getenv("SLOW_DISK_SPEED"), "%llu,%llu,%llu", &write_ns, &sync_ns, &bytes_per_s);
    for (char *next = strtok(strdup(list), ":"); next && watched < 8; next = strtok(NULL, ":")) folders[watched++] = next;
    page = shared;
}

static struct disk *disk_of(const char *path) {
    for (int at = 0; at < watched; at++) {
        size_t length = strlen(folders[at]);
        if (!strncmp(path, folders[at], length) && (path[length] == '/' || !path[length])) return &page->disks[at];
    }
    return NULL;
}

static unsigned long long now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

static void use(struct disk *disk, enum kind kind, unsigned long long bytes) {
    unsigned long long ns = kind == WRITE ? write_ns : sync_ns;
    atomic_fetch_add(&disk->of[kind].calls, 1);
    if (kind == WRITE) atomic_fetch_add(&disk->unsynced_bytes, bytes);
    if (kind == SYNC) ns += atomic_exchange(&disk->unsynced_bytes, 0) * 1e9 / bytes_per_s;
    if (!page->is_slow) return;
    unsigned long long came = now_ns(), free_at = disk->free_at_ns, end;
    do end = (free_at > came ? free_at : came) + ns;
    while (!atomic_compare_exchange_weak(&disk->free_at_ns, &free_at, end));
    struct timespec until = { end / 1000000000, end % 1000000000 };
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL));  /* a disk heeds no signal */
    ns = now_ns() - came;
    atomic_fetch_add(&disk->of[kind].delayed, 1);
    atomic_fetch_add(&disk->of[kind].delay_ns, ns);
    if (syscall(SYS_gettid) == getpid()) atomic_fetch_add(&disk->main_ns, ns);
}

static void use_file(int file, enum kind kind, unsigned long long bytes) {
    char name[32], path[PATH_MAX];
    if (!page) return;
    snprintf(name, sizeof name, "/proc/self/fd/%d", file);
    ssize_t length = readlink(name, path, sizeof path - 1);
    if (length <= 0) return;
    path[length] = 0;
    struct disk *disk = disk_of(path);
    if (disk) use(disk, kind, bytes);
}

static void use_path(const char *path) {
    struct disk *disk = page ? disk_of(path) : NULL;
    if (disk) use(disk, RENAME, 0);
}

#define NEXT(result, name, ...) \\
    static result (*next)(__VA_ARGS__); \\
    if (!next) next = dlsym(RTLD_NEXT, #name)

ssize_t write(int file, const void *data, size_t size) {
    NEXT(ssize_t, write, int, const void *, size_t);
    use_file(file, WRITE, size);
    return next(file, data, size);
}

ssize_t pwrite(int file, const void *data, size_t size, off_t at) {
    NEXT(ssize_t, pwrite, int, const void *, size_t, off_t);
    use_file(file, WRITE, size);
    return next(file, data, size, at);
}

ssize_t pwrite64(int file, const void *data, size_t size, off64_t at) {
    NEXT(ssize_t, pwrite64, int, const void *, size_t, off64_t);
    use_file(file, WRITE, size);
    return next(file, data, size, at);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    NEXT(ssize_t, writev, int, const struct iovec *, int);
    size_t size = 0;
    for (int at = 0; at < count; at++) size += parts[at].iov_len;
    use_file(file, WRITE, size);
    return next(file, parts, count);
}

int fsync(int file) { NEXT(int, fsync, int); use_file(file, SYNC, 0); return next(file); }

int fdatasync(int file) { NEXT(int, fdatasync, int); use_file(file, SYNC, 0); return next(file); }

int rename(const char *from, const char *to) {
    NEXT(int, rename, const char *, const char *);
    use_path(to);
    return next(from, to);
}

int unlink(const char *path) { NEXT(int, unlink, const char *); use_path(path); return next(path); }
"""


@dataclass(frozen=True)
class DiskSpeed:
    """How slow a disk is; the module says where the values come from."""

    write_ms: float = 5.0
    sync_ms: float = 50.0
    rate_mb_s: float = 10.0


@dataclass(frozen=True)
class Count:
    """Calls of one kind below one folder: all, those that were delayed, and for how long together."""

    calls: int
    delayed: int
    delay_s: float


@dataclass(frozen=True)
class DiskUse:
    """What one watched folder saw.

    Attributes
    ----------
    counts : dict of str to Count
        By kind: see `KINDS`.
    main_thread_s : float
        Delay that a process's main thread waited for itself: the event loop of a server, a round loop, a client's link.
    """

    counts: dict[str, Count]
    main_thread_s: float

    @property
    def delayed(self) -> int:
        """Calls that were delayed."""
        return sum(count.delayed for count in self.counts.values())

    @property
    def delay_s(self) -> float:
        """How long they waited together."""
        return sum(count.delay_s for count in self.counts.values())


class SlowDisk:
    """The library, compiled, and the page that it shares with all processes that have it.

    Parameters
    ----------
    folder : Path
        For the library and the page; not below a watched folder.
    watched : mapping of str to Path
        Absolute folders without symbolic links, which may not be there yet, `MOST_FOLDERS` at most; the names are for the
        report.
    speed : DiskSpeed

    Raises
    ------
    HostError
        There is no C compiler.
    """

    def __init__(self, folder: Path, watched: Mapping[str, Path], speed: DiskSpeed) -> None:
        self._library = compile_library(folder, "slow_disk", _SOURCE, "a slow disk is made")
        self._watched = watched
        self._speed = speed
        self.switch = folder / "slow_disk.page"
        """Its first byte is 1 while the disk is slow, and 0 otherwise."""
        self.switch.write_bytes(bytes(_PAGE_BYTES))

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which a process, and whatever it starts, has that disk: this process's and the library."""
        speed = (self._speed.write_ms * 1e6, self._speed.sync_ms * 1e6, self._speed.rate_mb_s * 1e6)
        return {
            **os.environ,
            "LD_PRELOAD": str(self._library),
            "SLOW_DISK_PAGE": str(self.switch),
            "SLOW_DISK_FOLDERS": ":".join(map(str, self._watched.values())),
            "SLOW_DISK_SPEED": ",".join(f"{value:.0f}" for value in speed),
        }

    def use(self) -> dict[str, DiskUse]:
        """What each folder saw so far, by its name."""
        page = self.switch.read_bytes()
        found = {}
        for number, name in enumerate(self._watched):
            _, _, main_ns, *counts = _DISK.unpack_from(page, _HEAD.size + number * _DISK.size)
            of_kinds = {
                kind: Count(counts[3 * at], counts[3 * at + 1], counts[3 * at + 2] / 1e9) for at, kind in enumerate(KINDS)
            }
            found[name] = DiskUse(of_kinds, main_ns / 1e9)
        return found
