"""Several processors, timers and idleness of a guest that is asked line by line (bench/tree/tests/serve).

  smp	two processors: how much faster two workers are than one after the other, and what two native
	processes gain on the same two host processors, in turn in the same run
  timer	Debian's cyclictest: how late a timer of 1 ms wakes a thread that nothing else is ahead of
  idle_cpu	what a guest without work takes of the host
"""
import contextlib
import os
import re
import select
import shutil
import statistics
import subprocess
import time

from common import BUILD, Failed, Limit, PAIRS, QEMU, TOP, log

PARTS = ["smp", "timer", "idle_cpu"]
PATIENCE = 300      # seconds for any one answer
WORK = "integer"
ROUNDS = 3 * PAIRS
TIMERS = 5000       # of 1 ms each
IDLE = 10           # seconds
LATENCIES = "cyclictest -q -t 1 -p 80 -i 1000 -h 20000 -l " + str(TIMERS)


class Guest:
    """A machine whose first serial port is our pipe, and that does what lines say."""

    def __init__(self, argv):
        self.p = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.text = b""

    def __enter__(self):
        try:
            self.until(b"SERVE ready")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.p.kill()
        self.p.communicate()

    def until(self, mark):
        end = time.monotonic() + PATIENCE
        while mark not in self.text:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.p.stdout], [], [], left)[0]:
                raise Failed(f"{self.p.args[0]} said no {mark.decode()} within {PATIENCE} s")
            data = os.read(self.p.stdout.fileno(), 65536)
            if not data:
                raise Failed(f"{self.p.args[0]} ended: {self.p.stderr.read().decode()[-300:]}")
            self.text += data
        before, self.text = self.text.split(mark, 1)
        return before.decode(errors="replace")

    def ask(self, line):
        self.p.stdin.write(line.encode() + b"\n")
        self.p.stdin.flush()
        return self.until(b"SERVE done")

    def cpu_seconds(self):
        return time.clock_gettime((~self.p.pid << 3) | 2)


def wall(work):
    begin = time.monotonic()
    work()
    return time.monotonic() - begin


def natively(program, n):
    workers = [subprocess.Popen([program, WORK], stdout=subprocess.DEVNULL) for _ in range(n)]
    if any(p.wait(PATIENCE) for p in workers):
        raise Failed(f"{program} {WORK} failed")


def in_guest(guest, n):
    out = guest.ask(" & ".join([f"/bin/bench {WORK} >/tmp/out"] * n) + " & wait; tail -n 1 /tmp/out")
    if not re.search(rf"BENCH {WORK} ", out) or "WRONG" in out:
        raise Failed(f"the guest's {WORK} failed: {out[-300:]}")


def scaling(table, machines, program):
    """One worker and two, in the guest and outside, over and over; each round stands for itself."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise Failed("smp wants two processors of the host")
    os.sched_setaffinity(0, cpus[:2])
    try:
        gains, ratios = {"guest": [], "native": []}, []
        with Guest(machines.skep(2)) as guest:
            in_guest(guest, 1)
            for n in range(ROUNDS):
                gain = {}
                for name, work in (("guest", lambda k: in_guest(guest, k)),
                                   ("native", lambda k: natively(program, k))):
                    one = wall(lambda w=work: w(1))
                    both = wall(lambda w=work: w(2))
                    gain[name] = 2 * min(one, wall(lambda w=work: w(1))) / both
                    gains[name].append(gain[name])
                ratios.append(gain["guest"] / gain["native"])
                log(f"round {n + 1}: two workers gain {gain['guest']:.2f} in the guest, {gain['native']:.2f} outside")
    finally:
        os.sched_setaffinity(0, cpus)
    log(f"the ratio of rounds: {statistics.median(ratios):.3f}, from {min(ratios):.3f} to {max(ratios):.3f}")
    table.add("smp/native", "times one worker", gains["guest"], gains["native"], "higher",
              limit=Limit("ratio", least=0.9))


def latencies(out):
    """us: median, 99 of 100, largest; from cyclictest's histogram."""
    rows = [(int(us), int(n)) for us, n in re.findall(r"^0*(\d+) 0*(\d+)\r?$", out, re.M)]
    most = re.search(r"# Max Latencies: 0*(\d+)", out)
    total = sum(n for _, n in rows)
    if total < TIMERS * 9 // 10 or not most:
        raise Failed(f"cyclictest said: {out[-300:]}")

    def quantile(q):
        seen = 0
        for us, n in rows:
            seen += n
            if seen >= q * total:
                return us
        return int(most[1])
    return quantile(0.5), quantile(0.99), int(most[1])


def timers(table, machines):
    found = {"skep": [], "QEMU": []}
    for n in range(PAIRS):
        both = [("skep", machines.skep(1))] + ([("QEMU", machines.qemu())] if QEMU else [])
        for name, argv in both[::-1] if n % 2 else both:
            with Guest(argv) as guest:
                time.sleep(2)
                found[name].append(latencies(guest.ask(LATENCIES)))
            log(f"pair {n + 1}: {name}: {found[name][-1]} us")
    for i, name in enumerate(("timer", "timer_99", "timer_max")):
        table.add(name, "us late", [f[i] for f in found["skep"]], [f[i] for f in found["QEMU"]])
    table.add("timer_jitter", "us, 99 of 100 less median", [f[1] - f[0] for f in found["skep"]],
              [f[1] - f[0] for f in found["QEMU"]])


def idle(table, machines):
    """Both stand idle at the same time."""
    with contextlib.ExitStack() as all_of_them:
        guests = [all_of_them.enter_context(Guest(argv)) for argv in
                  [machines.skep(1)] + ([machines.qemu()] if QEMU else [])]
        used = [[] for _ in guests]
        time.sleep(5)
        for _ in range(PAIRS):
            before = [g.cpu_seconds() for g in guests]
            time.sleep(IDLE)
            for g, was, to in zip(guests, before, used):
                to.append((g.cpu_seconds() - was) / IDLE * 100)
    table.add("idle_cpu", "% of a host CPU", used[0], used[1] if QEMU else [], limit=Limit("ratio", most=1))


class Machines:
    """How the two are started; run's own ways with another initramfs."""

    def __init__(self, prepare, skep_argv, qemu_argv):
        self.kernel, _, self.program = prepare()
        self.initrd = os.path.join(BUILD, "bench", "serve.gz")
        self.argv = skep_argv, qemu_argv
        subprocess.run(["scripts/mkinitramfs", self.initrd, "cloud", os.path.join(BUILD, "bench", "tree"),
                        self.cyclictest()], check=True, cwd=TOP)

    def cyclictest(self):
        """A tree of the program and its libraries; empty where Debian's package cannot be had."""
        tree, load = os.path.join(BUILD, "bench", "timer"), os.path.join(BUILD, "guest", "programs-load")
        shutil.rmtree(tree, ignore_errors=True)
        os.makedirs(os.path.join(tree, "bin"))
        if subprocess.run([os.path.join(TOP, "scripts/fetch-programs"), "load"]).returncode:
            return tree
        shutil.copy(os.path.join(load, "usr/bin/cyclictest"), os.path.join(tree, "bin"))
        for d, names in (("lib64", ["ld-linux-x86-64.so.2"]),
                         ("lib/x86_64-linux-gnu", ["libc.so.6", "libnuma.so.1", "libpthread.so.0", "librt.so.1"])):
            os.makedirs(os.path.join(tree, d))
            for name in names:
                shutil.copy(os.path.join(load, d, name), os.path.join(tree, d))
        return tree

    def skep(self, cpus):
        argv = self.argv[0](self.kernel, self.initrd, "console=ttyS0 quiet skep.test=serve", None)
        argv[argv.index("-c") + 1] = str(cpus)
        return argv

    def qemu(self):
        return self.argv[1](self.kernel, self.initrd, "console=ttyS0 quiet skep.test=serve")


def take(table, names, make):
    machines = make()
    if "smp" in names:
        scaling(table, machines, machines.program)
    if "timer" in names:
        timers(table, machines)
    if "idle_cpu" in names:
        idle(table, machines)
