# SPDX-License-Identifier: Apache-2.0
"""The state of the machine before a run: what of a file is in the page cache, what memory is at hand. README.md tells
why each is made as it is."""

import ctypes
import mmap
import os
import resource
import time
from pathlib import Path

PAGE = resource.getpagesize()
CACHESTAT = 451  # the same number on every architecture
MADV_POPULATE_WRITE = 23
WARM_MISSING_MAX = 0.001  # of the file's pages
WARM_S_MAX = 15  # a kernel that drops idle pages (DAMON) drops some while they are read


class StateError(RuntimeError):
    """The page cache could not be brought to the state that a run needs."""


class CachestatRange(ctypes.Structure):
    _fields_ = [("offset", ctypes.c_uint64), ("bytes", ctypes.c_uint64)]


class Cachestat(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("cached", "dirty", "writeback", "evicted", "recently_evicted")]


libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def cached_pages(path):
    """Pages of the file in the page cache, by cachestat(2), before Linux 6.5 by mincore(2)."""
    fd = os.open(path, os.O_RDONLY)
    try:
        whole, answer = CachestatRange(0, 0), Cachestat()
        if libc.syscall(CACHESTAT, fd, ctypes.byref(whole), ctypes.byref(answer), 0) == 0:
            return answer.cached
        with mmap.mmap(fd, 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as mapped:
            pages = -(-len(mapped) // PAGE)
            resident = (ctypes.c_ubyte * pages)()
            anchor = ctypes.c_char.from_buffer(mapped)
            address = ctypes.c_void_p(ctypes.addressof(anchor))
            result = libc.mincore(address, ctypes.c_size_t(len(mapped)), resident)
            del anchor
            if result != 0:
                raise OSError(ctypes.get_errno(), "mincore")
            return sum(page & 1 for page in resident)
    finally:
        os.close(fd)


def make_cold(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)  # dirty pages are not dropped
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    left = cached_pages(path)
    if left > 0:
        raise StateError(f"{left} pages stay in the page cache; who has it mapped?")


def make_warm(path):
    buffer, pages = bytearray(4 << 20), -(-path.stat().st_size // PAGE)
    give_up = time.monotonic() + WARM_S_MAX
    while time.monotonic() < give_up:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
        missing = pages - cached_pages(path)
        if missing <= WARM_MISSING_MAX * pages:
            return
    raise StateError(f"{missing} of {pages} pages do not stay in the page cache")


def disk_bytes_read(path):
    """What the file's disk has given since the machine started; None where there is no such disk."""
    device = os.stat(path).st_dev
    try:
        stat = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text()
    except OSError:
        return None
    return int(stat.split()[2]) * 512  # sectors of 512 bytes, whatever the disk's are


def children_bytes_read():
    """What processes that have ended, and only they, have read from storage."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_inblock * 512


def process_bytes_read(pid):
    """What a process that still runs has read from storage: the same count."""
    for line in Path(f"/proc/{pid}/io").read_text().splitlines():
        if line.startswith("read_bytes:"):
            return int(line.split()[1])
    raise OSError(f"no read_bytes in /proc/{pid}/io")


class HeldMemory:
    """Touched huge pages in a process of their own. When it ends they are the kernel's to give to the next one, and
    the hypervisor has not had the time to take them."""

    def __init__(self, size):
        ready, self.release_fd = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self.release_fd[1])
                memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
                memory.madvise(mmap.MADV_HUGEPAGE)
                try:
                    memory.madvise(MADV_POPULATE_WRITE)
                except OSError:  # before Linux 5.14
                    for at in range(0, size, PAGE):
                        memory[at] = 1
                os.write(ready[1], b"1")
                os.read(self.release_fd[0], 1)  # returns when the parent has closed its end
            finally:
                os._exit(0)
        os.close(ready[1])
        os.close(self.release_fd[0])
        if os.read(ready[0], 1) != b"1":
            raise MemoryError(f"no {size} bytes to hold before a run")
        os.close(ready[0])

    def free(self):
        os.close(self.release_fd[1])
        os.waitpid(self.pid, 0)
