"""Rows of save, restore and their relatives, beside QEMU's migration to a file and bare writes.

The guest is bench/guest/memory.c, on both sides the same.  QEMU migrates to a file the usual way,
`exec:cat > FILE`, its bandwidth limit lifted and the guest stopped before the clock starts.  Rows
that end in "/fd" have a faster way as the peer, that a program can take and a person hardly: the
file itself is the channel (`fd:`).  Restores use that one.  A bare write is write(2) of the same
bytes, from memory that is there, to a new file in the same directory, with the same holes.  Files
are in build/bench/ and are removed; what is read has just been written, so it comes from the page
cache.

Rates are the guest's dirtied MiB by the time of the whole command, from before its process is made
until it has ended.  "pause" is what the machine says; "gap" is the longest time that its ticks
stayed away, seen from outside.
"""
import os
import shutil
import statistics
import subprocess
import tempfile
import time

from common import BENCH, Failed, Limit, PAIRS, QEMU, TOP, log
from machines import Qemu, Skep, bare_write, extents

MIB = 1 << 20
FIRST = 16                  # MiB, where what the guest dirties begins
DIRTIED = 150               # MiB of it
SIZES = {"1g": 1024, "8g": 8192}
LOW = 2048                  # MiB of RAM below 4 GiB, on both machines
WRITE = 4 * MIB             # bytes a write(2): larger or smaller is not faster


def build_guest():
    out = os.path.join(BENCH, "memory.elf")
    subprocess.run(["scripts/build-guest", "-L", "tests/guests/lib/guest.ld", "-o", out,
                    "tests/guests/lib/start64.S", "bench/guest/memory.c"], check=True, cwd=TOP)
    return out


def available():
    """MiB of memory that programs can have without swapping."""
    with open("/proc/meminfo") as f:
        for line in f:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) // 1024
    raise Failed("/proc/meminfo does not say how much memory is free")


def check_room(directory, memory, disk):
    """MiB that a part needs, before it begins."""
    free = shutil.disk_usage(directory).free // MIB
    if free < disk:
        raise Failed(f"{directory} has {free} MiB free, and {disk} are needed")
    if available() < memory:
        raise Failed(f"the host has {available()} MiB of memory free, and {memory} are needed")


class Snapshots:
    """One scratch directory, one guest, one table."""

    def __init__(self, table, pairs=PAIRS, sizes=None, dirtied=DIRTIED):
        self.table, self.pairs, self.dirtied = table, pairs, dirtied
        self.sizes = sizes or SIZES
        self.part, self.failed = None, []       # what runs; what lacks figures
        os.makedirs(BENCH, exist_ok=True)
        self.kernel = build_guest()
        # Sockets have short paths, and snapshots want the disk that is measured.
        self.scratch = tempfile.mkdtemp(prefix="skep-bench-")
        self.files = tempfile.mkdtemp(prefix="snap-", dir=BENCH)
        self.seed = 0

    def close(self):
        shutil.rmtree(self.scratch, ignore_errors=True)
        shutil.rmtree(self.files, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # --- what the parts share ---

    def path(self, name):
        """A new file: what was there is gone."""
        path = os.path.join(self.files, name)
        if os.path.exists(path):
            os.unlink(path)
        return path

    def next_seed(self):
        self.seed += 1
        return self.seed

    def skep(self, ram, dirty=True):
        return self._prepared(Skep.start(ram, self.kernel, self.scratch), dirty)

    def qemu(self, ram, dirty=True):
        return self._prepared(Qemu.start(ram, self.kernel, self.scratch), dirty)

    def _prepared(self, m, dirty):
        try:
            m.ready()
            m.sum = m.fill(FIRST, self.dirtied, self.next_seed()) if dirty else None
            return m
        except Failed as e:
            said = m.stderr()[-400:]
            m.close()
            raise Failed(f"{e}: {said}" if said else str(e)) from None

    def alternate(self, turns, *sides):
        """
        Calls the sides in turn, each first as often as last; each returns {figure: [values]}.
        A side that fails is told and not called again: its figures are null.
        """
        found, sides = {}, list(sides)
        for n in range(turns):
            for side in sides[::-1] if n % 2 else sides[:]:
                try:
                    for k, v in side().items():
                        found.setdefault(k, []).extend(v)
                except (Failed, OSError, subprocess.SubprocessError) as e:
                    log(f"bench: {e}")
                    self.failed.append(self.part)
                    sides.remove(side)
        return found

    def peers(self, *sides):
        return sides if QEMU else ()

    # --- save: a checkpoint, the guest stands still ---

    def saves(self, m, sync, rounds):
        """
        skep, bare, bare, skep: each first once.  Seconds, and what was written.  With fsync the
        files go at the end: what a file system does about those that are gone, it does in the next
        fsync, whosever that is.
        """
        options = [] if sync else ["--no-sync"]
        took, replies, made = {"skep": [], "bare": []}, [], []

        def new_file():
            if sync:
                os.sync()
                time.sleep(0.1)
            else:
                remove_all()
            made.append(self.path(f"turn{len(made)}"))
            return made[-1]

        def remove_all():
            for path in made:
                if os.path.exists(path):
                    os.unlink(path)
        parts = None
        for side in ("skep", "bare", "bare", "skep") * rounds:
            path = new_file()
            if side == "bare":
                took[side].append(bare_write(path, parts, WRITE, sync))
                continue
            (begin, end), reply = m.save(path, *options)
            took[side].append(end - begin)
            replies.append(reply)
            parts = parts or self.whole(path)
        remove_all()
        return took["skep"], took["bare"], replies

    def whole(self, path):
        """What a snapshot holds; it cannot be less than the guest has written."""
        parts = extents(path)
        if sum(len(data) for _, data in parts) < self.dirtied * MIB:
            raise Failed("skep saved less than the guest has written")
        return parts

    def save(self):
        for label, ram in self.sizes.items():
            check_room(self.files, min(ram, 1024) + 1536, 2560)

            def skep():
                with self.skep(ram) as m:
                    cached, bare, replies = self.saves(m, False, 1)
                    synced, bare_synced, _ = self.saves(m, True, 2)
                log(f"save-{label}: skep {min(cached) * 1000:.1f} ms, bare write "
                    f"{min(bare) * 1000:.1f} ms; with fsync {min(synced) * 1000:.1f} and "
                    f"{min(bare_synced) * 1000:.1f} ms")
                return {"skep": cached, "bare": bare, "skep+": synced, "bare+": bare_synced,
                        "pause": [r["pause_ns"] / 1e6 for r in replies],
                        "own": [r["elapsed_ns"] / 1e6 for r in replies]}

            def qemu():
                took = {}
                with self.qemu(ram) as m:
                    for way in ("fd", "exec"):
                        begin, end = m.save(self.path("qemu"), way=way)
                        self.path("qemu")
                        took[way] = [end - begin]
                log(f"save-{label}: QEMU {took['exec'][0] * 1000:.1f} ms, "
                    f"without a pipe {took['fd'][0] * 1000:.1f} ms")
                return took
            f = self.alternate(self.pairs, skep, *self.peers(qemu))

            def rate(key):
                return [self.dirtied / t for t in f.get(key, [])]

            def ms(key):
                return [t * 1000 for t in f.get(key, [])]
            self.table.add(f"save-{label}", "MiB/s to the page cache", rate("skep"), rate("exec"),
                           "higher", 1, Limit("ratio", least=3))
            self.table.add(f"save-{label}/fd", "MiB/s; peer: QEMU without a pipe", rate("skep"),
                           rate("fd"), "higher", 1)
            self.table.add(f"save-{label}/write", "MiB/s; peer: bare write", rate("skep"),
                           rate("bare"), "higher", 1, Limit("ratio", least=0.7))
            self.table.add(f"save-sync-{label}/write", "ms; peer: bare write + fsync",
                           ms("skep+"), ms("bare+"), limit=Limit("ratio", most=1.2))
            self.table.add(f"save-own-{label}", "ms by skep's own clock", f.get("own", []), [])
            self.table.add(f"save-pause-{label}", "ms the guest stood still", f.get("pause", []),
                           [])

    # --- idle: RAM that nobody touched costs nothing ---

    def idle(self):
        label, ram = list(self.sizes.items())[-1]
        check_room(self.files, 2048, 1024)

        def skep():
            with self.skep(ram, dirty=False) as m:
                (begin, end), reply = m.save(self.path("skep.snap"), "--no-sync")
                self.path("skep.snap")
            return {"skep": [(end - begin) * 1000], "bytes": [reply["bytes"] / MIB]}

        def qemu():
            with self.qemu(ram, dirty=False) as m:
                path = self.path("qemu")
                begin, end = m.save(path)
                size = os.path.getsize(path)
                self.path("qemu")
            return {"qemu": [(end - begin) * 1000], "qemu bytes": [size / MIB]}
        f = self.alternate(self.pairs, skep, *self.peers(qemu))
        self.table.add(f"idle-{label}", "ms to save what little was touched", f.get("skep", []),
                       f.get("qemu", []))
        self.table.add(f"idle-bytes-{label}", "MiB written", f.get("bytes", []),
                       f.get("qemu bytes", []))

    # --- live: the guest goes on, and writes all the while ---

    def live_save(self, ram, ranges):
        with self.skep(ram, dirty=False) as m:
            for start, count in ranges:
                m.stamp(start, count, self.next_seed())
            first = ranges[0]
            m.ask(f"churn {first[0]} {first[1]} {self.next_seed()}", "churning")
            (begin, end), reply = m.save(self.path("skep.snap"), "--live", "--no-sync")
            self.path("skep.snap")
            gap = m.longest_gap(begin, end)
            os.write(m.stdin, b"\n")
            rounds = m.console.reply(b"churned")
        log(f"live: {reply['pause_ns'] / 1e6:.2f} ms of pause, {gap:.1f} ms without a tick; the "
            f"guest went {rounds} times through its memory")
        return {"pause": [reply["pause_ns"] / 1e6], "gap": [gap], "time": [(end - begin) * 1000]}

    def live(self):
        label, ram = list(self.sizes.items())[-1]
        touched = min(1024, ram // 2)
        some = [(FIRST, touched)]
        everything = [(FIRST, min(ram, LOW) - FIRST)] + ([(4096, ram - LOW)] if ram > LOW else [])
        check_room(self.files, 3 * touched + 1024, touched + 1024)
        f = self.alternate(self.pairs, lambda: self.live_save(ram, some))
        self.table.add(f"live-pause-{label}", f"ms of pause, {touched} MiB touched",
                       f.get("pause", []), [], limit=Limit("skep", most=5))
        self.table.add(f"live-gap-{label}", "ms without a tick, the same saves", f.get("gap", []),
                       [])
        self.table.add(f"live-time-{label}", "ms, the same saves", f.get("time", []), [])
        try:
            check_room(self.files, ram + ram // 4 + 1024, ram + 1024)
        except Failed as e:
            log(f"bench: live with all of RAM touched: {e}")
            f = {}
        else:
            f = self.alternate(1, lambda: self.live_save(ram, everything))
        self.table.add(f"live-pause-{label}-all", "ms of pause, all RAM touched",
                       f.get("pause", []), [])
        self.table.add(f"live-gap-{label}-all", "ms without a tick, the same save",
                       f.get("gap", []), [])

    # --- restore: to the first instruction, to the first tick, to the working set ---

    def restored(self, m, want):
        """
        Of one restored machine, in ms from its start: the first tick, the working set read; and
        how long it takes to read it again.  Its RAM has to be what was saved.
        """
        tick, _ = m.console.first_tick()
        got = m.walk(FIRST, self.dirtied)
        walked = m.console.replied
        begin = time.monotonic()
        m.walk(FIRST, self.dirtied)
        again = m.console.replied - begin
        if got != want:
            raise Failed(f"{m.argv[0]} restored RAM whose sum is {got}, and {want} was saved")
        m.reset()
        return (tick - m.begin) * 1000, (walked - m.begin) * 1000, again * 1000

    def restore(self):
        for label, ram in self.sizes.items():
            check_room(self.files, min(ram, 1024) + 1536, 1024)
            sums = {}

            def skep():
                path = os.path.join(self.files, "skep.snap")
                if not os.path.exists(path):
                    with self.skep(ram) as m:
                        m.save(path)
                        sums["skep"] = m.sum
                found = {"tick": [], "set": [], "again": [], "insn": []}
                for _ in range(3):
                    with Skep.restore(path, self.scratch) as m:
                        tick, ready, again = self.restored(m, sums["skep"])
                        found["insn"].append(m.statistics()["first_insn_us"] / 1000)
                    found["tick"].append(tick)
                    found["set"].append(ready)
                    found["again"].append(again)
                log(f"restore-{label}: skep ticks after {statistics.median(found['tick']):.2f} ms")
                return found

            def qemu():
                path = os.path.join(self.files, "qemu")
                if not os.path.exists(path):
                    with self.qemu(ram) as m:
                        m.save(path, stopped=False)     # so that it goes on when it is restored
                        sums["qemu"] = m.sum
                with Qemu.restore(path, ram, self.kernel, self.scratch) as m:
                    tick, ready, again = self.restored(m, sums["qemu"])
                log(f"restore-{label}: QEMU ticks after {tick:.1f} ms")
                return {"qemu tick": [tick], "qemu set": [ready], "qemu again": [again]}
            f = self.alternate(self.pairs, skep, *self.peers(qemu))
            self.path("skep.snap")
            self.path("qemu")
            self.table.add(f"restore-insn-{label}", "ms to the first instruction",
                           f.get("insn", []), [], limit=Limit("skep", most=5))
            self.table.add(f"restore-tick-{label}", "ms, process start to the guest's tick",
                           f.get("tick", []), f.get("qemu tick", []), digits=3,
                           limit=Limit("ratio", most=1 / 30))
            self.table.add(f"restore-set-{label}", f"ms, until its {self.dirtied} MiB are read",
                           f.get("set", []), f.get("qemu set", []), digits=2)
            self.table.add(f"restore-again-{label}", "ms to read them a second time",
                           f.get("again", []), f.get("qemu again", []), digits=2)

    # --- delta: what changed since the last save ---

    def delta(self):
        dirty = 10
        for label, ram in self.sizes.items():
            check_room(self.files, min(ram, 1024) + 1536, 1024)

            def skep():
                found = {"skep": [], "bare": [], "bytes": []}
                with self.skep(ram) as m:
                    m.save(self.path("base.snap"))
                    for n in range(3):
                        m.fill(FIRST + n * dirty, dirty, self.next_seed())
                        path = self.path(f"delta{n}.snap")
                        os.sync()
                        (begin, end), reply = m.save(path, "--delta")
                        found["skep"].append((end - begin) * 1000)
                        found["bytes"].append(reply["bytes"] / MIB)
                        parts = extents(path)
                        os.sync()
                        bare = bare_write(self.path("bare"), parts, WRITE, True)
                        found["bare"].append(bare * 1000)
                for name in ("base", "delta0", "delta1", "delta2"):
                    self.path(name + ".snap")
                log(f"delta-{label}: skep {found['skep'][0]:.1f} ms")
                return found
            f = self.alternate(self.pairs, skep)
            self.table.add(f"delta-{label}/write", f"ms, {dirty} MiB, fsync; peer: bare",
                           f.get("skep", []), f.get("bare", []), limit=Limit("skep", most=30))
            self.table.add(f"delta-bytes-{label}", "MiB written", f.get("bytes", []), [])


PARTS = ["save", "idle", "live", "restore", "delta"]


def take(table, names):
    """Takes the parts in names."""
    with Snapshots(table) as s:
        for s.part in [n for n in PARTS if n in names]:
            try:
                getattr(s, s.part)()
            except (Failed, OSError, subprocess.SubprocessError) as e:
                log(f"bench: {s.part}: {e}")
                s.failed.append(s.part)
    if s.failed:
        raise Failed(f"figures are missing of: {' '.join(dict.fromkeys(s.failed))}")
