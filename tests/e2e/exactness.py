"""Save at N, restore in a new process, run to M: equal to running to M, byte for byte.

One reference run of Debian saves at pseudo-random instruction counts N1 < N2 < ...; each file is
restored --exact in a new process and runs to the next count, where it saves as well: the two files
must be the same but for what belongs to the file and the host (its id, the host's clock, the
digest that covers them), and the consoles must join without a byte lost or told twice.

SKEP_TEST_TIER=interpreter or translator says how the processor runs code (soft.tier); two of them
with a comma between: the reference runs with the first one, what is restored with the second.
SKEP_TEST_POINTS is how many points there are with several processors.
"""
import json
import mmap
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from lib import BUILD, LONG, SKEP, Skip, has_model, initrd, kernel, need_tier, run, scratch

HOST_FIELDS = {"manifest.id", "manifest.host_wall_ns", "manifest.parent_path", "manifest.parent", "manifest.written",
               # What a slow reader of the console has not taken yet.
               "lpc.com1.unsent", "lpc.com1.unread"}
RAM = "192M"
DEBIAN_POINTS = 3000 if LONG else 60
SMP_POINTS = int(os.environ.get("SKEP_TEST_POINTS", 1000 if LONG else 20))
GUEST_POINTS = 400 if LONG else 5


class tiers:
    """soft.tier of the reference and of what is restored."""
    both = (os.environ.get("SKEP_TEST_TIER", "auto").split(",") * 2)[:2]

    @classmethod
    def need(cls):
        for tier in set(cls.both):
            need_tier(tier)


def seed():
    value = int(os.environ.get("SKEP_TEST_SEED", "20261122"))
    print(f"# seed {value}; SKEP_TEST_SEED sets another", flush=True)
    return value


def shm():
    """A directory in memory, if there is room: 200 files of 100 MiB are written and removed."""
    for path in "/dev/shm", scratch():
        st = os.statvfs(path)
        if st.f_bavail * st.f_frsize > 4 << 30:
            out = os.path.join(path, f"skep-exact-{os.getpid()}")
            os.makedirs(out)
            return out
    raise Skip("4 GiB of free space for snapshots")


def machine_args(workload, *more, cpus=1, modules=()):
    return ["run", "-c", str(cpus), "-m", RAM, "-l", "com1,stdio", "-o", "clock.mode=virtual", "-o", "seed=7",
            "-o", "uuid=11111111-2222-4333-8444-555555555555", *more,
            "--kernel", kernel("cloud"), "--initrd", initrd("cloud", modules),
            "--append", f"console=ttyS0 skep.test={workload}", "exact"]


def start(argv, out):
    argv = [argv[0], "-o", f"soft.tier={tiers.both[argv[0] == 'restore']}", *argv[1:]]
    # The reference and its pieces have one name and run at once: each has a directory to itself.
    start.count = getattr(start, "count", 0) + 1
    env = dict(os.environ, SKEP_RUNTIME_DIR=os.path.join(scratch(), f"run{start.count}"))
    return subprocess.Popen([SKEP, *argv], stdin=subprocess.DEVNULL, stdout=open(out, "wb"),
                            stderr=subprocess.PIPE, env=env)


def finish(p, codes, what, timeout=300):
    try:
        _, err = p.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        p.kill()
        p.communicate()
        raise AssertionError(f"{what} did not end within {timeout} s")
    assert p.returncode in codes, f"{what} ended with {p.returncode}: {err.decode()[-500:]}"


def contents(path):
    with open(path, "rb") as f:
        return f.read()


def same(a, b):
    """None, or how two snapshots differ beyond what belongs to the file and the host."""
    p = subprocess.run([SKEP, "diff", "--json", a, b], capture_output=True, text=True, timeout=120)
    assert p.returncode in (0, 1), f"skep diff ended with {p.returncode}: {p.stderr[-300:]}"
    d = json.loads(p.stdout)
    fields = [f for f in d["fields"] if not f["host"]]
    if fields or d["ram_pages"]:
        return json.dumps(fields[:8]) + f", {d['ram_pages']} pages of RAM"
    odd = {f["field"] for f in d["fields"]} - HOST_FIELDS
    return f"host fields nobody listed: {odd}" if odd else None


def same_bytes(a, b):
    """The files themselves: RAM equal byte for byte, and the same length."""
    if os.path.getsize(a) != os.path.getsize(b):
        return f"the lengths are {os.path.getsize(a)} and {os.path.getsize(b)}"
    with open(a, "rb") as fa, open(b, "rb") as fb:
        ma = mmap.mmap(fa.fileno(), 0, access=mmap.ACCESS_READ)
        mb = mmap.mmap(fb.fileno(), 0, access=mmap.ACCESS_READ)
        notes = int.from_bytes(ma[72:80], "little")     # p_offset of the first program header
        step = 8 << 20
        for at in range(0, notes, step):
            if ma[at:min(at + step, notes)] != mb[at:min(at + step, notes)]:
                return f"bytes at {at:#x} and after differ"
        bad = sum(x != y for x, y in zip(ma[notes:], mb[notes:]))
        return None if bad <= 16 + 16 + 9 + 16 else f"{bad} bytes of the notes differ"


class Reference:
    """The run that saves at every point; it is held back while too many files wait."""

    def __init__(self, points, directory, console, argv):
        self.points, self.directory = points, directory
        args = []
        for i, n in enumerate(points):
            args += ["--save-at", f"{n}:{self.file(i)}"]
        self.p = start(argv[:1] + args + argv[1:], console)
        self.stopped = False

    def file(self, i):
        return os.path.join(self.directory, f"ref-{i}.skep")

    def wait(self, i, ahead, timeout=300):
        """Waits for file i; stops the reference when it is more than `ahead` files beyond it."""
        end = time.monotonic() + timeout
        while not os.path.exists(self.file(i)):
            self.go()
            if self.p.poll() is not None and not os.path.exists(self.file(i)):
                raise AssertionError(f"the reference ended with {self.p.returncode} before point {i}: "
                                     f"{self.p.stderr.read().decode()[-400:]}")
            assert time.monotonic() < end, f"point {i} was not reached within {timeout} s"
            time.sleep(0.002)
        if i + ahead < len(self.points) and os.path.exists(self.file(i + ahead)) and not self.stopped:
            self.p.send_signal(signal.SIGSTOP)
            self.stopped = True

    def go(self):
        if self.stopped:
            self.p.send_signal(signal.SIGCONT)
            self.stopped = False

    def kill(self):
        if self.p.poll() is None:
            self.p.kill()
            self.p.wait()


def segment(ref, i, directory, console):
    """Restores point i and runs to point i + 1, saving there; returns the file."""
    out = os.path.join(directory, f"seg-{i + 1}.skep")
    n = ref.points[i + 1]
    p = start(["restore", "--exact", "--save-at", f"{n}:{out}", "-o", f"clock.limit={n + 1}",
               ref.file(i)], console)
    finish(p, (2,), f"the machine restored at {ref.points[i]}")
    return out


def glue(whole, pieces):
    """The consoles in a row.  A piece runs one instruction further than its file: that may have told a byte."""
    out = b""
    for p in pieces:
        if out + p not in whole and out[:-1] + p in whole:
            out = out[:-1]
        out += p
    return out


def join(points, directory, argv, bytes_every=10, codes=(1, 2)):
    """Runs the reference and every segment; returns how many were compared."""
    consoles = []
    directory = tempfile.mkdtemp(dir=directory)
    ref = Reference(points, directory, os.path.join(directory, "reference"), argv)
    try:
        for i in range(len(points) - 1):
            ref.wait(i, 6)
            console = os.path.join(directory, "console")
            out = segment(ref, i, directory, console)
            ref.wait(i + 1, 6)
            why = same(ref.file(i + 1), out)
            if not why and i % bytes_every == 0:
                why = same_bytes(ref.file(i + 1), out)
            assert not why, f"from {points[i]} to {points[i + 1]}: {why}"
            consoles.append(contents(console))
            os.unlink(out)
            os.unlink(ref.file(i))
        ref.go()
        finish(ref.p, codes, "the reference")
    finally:
        ref.kill()
    whole = contents(os.path.join(directory, "reference"))
    joined = glue(whole, consoles)
    assert joined in whole, "the consoles of the pieces are not a piece of the console"
    print(f"# {len(points) - 1} points from {points[0]} to {points[-1]}, "
          f"{len(joined)} bytes of console", flush=True)
    shutil.rmtree(directory)
    return len(points) - 1


def total_insns(argv, directory, codes=(1,)):
    stats = os.path.join(directory, "stats")
    p = start(argv[:1] + ["--stats", stats] + argv[1:], os.path.join(directory, "whole"))
    finish(p, codes, "the whole run")
    return json.loads(contents(stats))["insns"]


def choose(rng, total, n):
    """Counts all over the run, most of them in bunches: neighbours are where things happen."""
    points = set()
    while len(points) < n:
        at = rng.randrange(1000, total - 100000)
        points.add(at)
        if rng.random() < 0.2:
            points.update(at + rng.randrange(1, 50) for _ in range(3))
    return sorted(points)


def debian_boot():
    directory = shm()
    try:
        argv = machine_args("compute")
        total = total_insns(argv, directory)
        rng = random.Random(seed())
        points = choose(rng, total, DEBIAN_POINTS)
        assert join(points, directory, argv) >= DEBIAN_POINTS - 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def debian_smp(cpus):
    """The same with processors that take turns, each of which has work of its own."""
    directory = shm()
    try:
        argv = machine_args("compute-smp", cpus=cpus)
        total = total_insns(argv, directory)
        points = choose(random.Random(seed() + cpus), total, SMP_POINTS)
        join(points, directory, argv)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def debian_two():
    debian_smp(2)


def debian_four():
    debian_smp(4)


def identities():
    """Debian with kvmclock and with Hyper-V's clocks for its own."""
    for identity, source in ("kvm", "kvm-clock"), ("hyperv", "hyperv_clocksource_tsc_page"):
        directory = shm()
        try:
            argv = machine_args(f"compute clocksource={source}", "-o", f"identity={identity}")
            total = total_insns(argv, directory)
            rng = random.Random(seed() + 3)
            points = choose(rng, total, 600 if LONG else 12)
            assert join(points, directory, argv) >= len(points) - 1
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def entropy():
    """A guest that reads virtio-rnd all the time and gives memory to a balloon, messages or lines."""
    for append in "", " pci=nomsi":
        directory = shm()
        try:
            argv = machine_args("entropy" + append, "-s", "3,virtio-rnd", "-s", "11,virtio-balloon",
                                modules=("virtio_pci", "virtio_rng", "virtio_balloon"))
            total = total_insns(argv, directory)
            points = choose(random.Random(seed() + 4), total, 600 if LONG else 12)
            assert join(points, directory, argv) >= len(points) - 1
        finally:
            shutil.rmtree(directory, ignore_errors=True)


# With the settings that they need.
GUESTS = [("real",), ("exceptions",), ("strings",), ("paging32",), ("task",), ("smc",), ("timers",), ("apic",),
          ("hpet",), ("fpu",), ("exact",), ("pvclock", "-o", "identity=kvm"),
          ("hyperv", "-o", "identity=hyperv"), ("avx", "-o", "cpu.model=skep-v3.1")]


def freestanding():
    """Small guests, densely: real mode, interrupt delivery, faults, rep, task switches, SMC."""
    directory = shm()
    rng = random.Random(seed() + 2)
    every, done = GUEST_POINTS, 0
    try:
        for guest, *more in GUESTS:
            elf = os.path.join(BUILD, "tests", "guests", guest)
            if not os.path.exists(elf):
                raise Skip(f"the guests of tests/guests ({elf}); `make build` makes them")
            argv = ["run", "-c", "1", "-m", "256M", "-l", "com1,stdio", "-o", "clock.mode=virtual", "-o",
                    "seed=7", "-o", "lpc.debug_exit=true", "-o",
                    "uuid=11111111-2222-4333-8444-555555555555", *more, "--kernel", elf, guest]
            if guest == "avx" and not has_model(list(more)):
                continue
            total = total_insns(argv, directory, (1,))
            start_at = rng.randrange(200, 2000)
            points = {start_at}
            while len(points) < every:
                at = rng.randrange(start_at, total - 1)
                points.update({at, at + 1} if rng.random() < 0.3 else {at})
            done += join(sorted(points), directory, argv, codes=(1,))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(f"# {done} points in {len(GUESTS)} guests", flush=True)


def to_the_end():
    """A few are run to the guest's own end: same console, same exit code, same final state."""
    directory = shm()
    try:
        argv = machine_args("compute")
        whole = os.path.join(directory, "whole")
        total = total_insns(argv, directory)
        rng = random.Random(seed() + 1)
        points = sorted(rng.randrange(1000, total - 1000) for _ in range(3))
        files = [os.path.join(directory, f"p{i}.skep") for i in range(len(points))]
        state = os.path.join(directory, "state")
        args = sum((["--save-at", f"{n}:{f}"] for n, f in zip(points, files)), [])
        p = start(argv[:1] + args + ["--dump-state", state] + argv[1:], whole)
        finish(p, (1,), "the reference")
        for n, f in zip(points, files):
            end, console = os.path.join(directory, "end"), os.path.join(directory, "tail")
            p = start(["restore", "--exact", "--dump-state", end, f], console)
            finish(p, (1,), f"the machine restored at {n}")
            assert contents(whole).endswith(contents(console)), f"at {n}: another console"
            assert contents(end) == contents(state), f"at {n}: another state at the end"
            os.unlink(f)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def save_restore_save():
    """save -> restore --exact -> save gives the same file but for the host's fields."""
    directory = shm()
    try:
        argv = machine_args("compute")
        n = 300000000
        a, b = os.path.join(directory, "a.skep"), os.path.join(directory, "b.skep")
        p = start(argv[:1] + ["--save-at", f"{n}:{a}", "-o", f"clock.limit={n + 1}"] + argv[1:],
                  os.devnull)
        finish(p, (2,), "the reference")
        # The first instruction count after the restore is the earliest that can be saved at: one on.
        c = os.path.join(directory, "c.skep")
        p = start(argv[:1] + ["--save-at", f"{n}:{c}.first", "--save-at", f"{n + 1}:{c}", "-o",
                              f"clock.limit={n + 2}"] + argv[1:],
                  os.devnull)
        finish(p, (2,), "the second reference")
        p = start(["restore", "--exact", "--save-at", f"{n + 1}:{b}", "-o", f"clock.limit={n + 2}", a],
                  os.devnull)
        finish(p, (2,), "the restored machine")
        why = same(b, c) or same_bytes(b, c)
        assert not why, why
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    if os.environ.get("SKEP_TEST_TIER"):
        try:
            tiers.need()
        except Skip as e:
            print(e)
            sys.exit(77)
    run(save_restore_save, freestanding, to_the_end, identities, entropy, debian_two, debian_four, debian_boot)
