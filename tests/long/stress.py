"""Two hundred checkpoints of four processors under Debian's stress-ng and hackbench, in every way that there
is to save; the kernel and a program that watches all clocks must not notice.

SKEP_TEST_SAVES is another number; SKEP_TEST_SEED another order.
"""
import contextlib
import os
import random
import re
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
import clocks  # noqa: E402
from lib import GUEST, PROMPT, SKEP, SUSPENDED, TOP, Machine, Skip, kernel, run, scratch, skep  # noqa: E402
from smp import healthy  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
SAVES = int(os.environ.get("SKEP_TEST_SAVES", "200"))


def initrd():
    """The tests' initramfs with the programs, and the one that watches clocks."""
    if not hasattr(initrd, "path"):
        kernel("cloud")
        p = subprocess.run([os.path.join(TOP, "scripts/fetch-programs"), "load"], capture_output=True, text=True)
        if p.returncode:
            raise Skip((p.stderr.strip().splitlines() or ["programs"])[-1])
        path = os.path.join(scratch(), "load.gz")
        subprocess.run([os.path.join(TOP, "scripts/mkinitramfs"), path, "cloud", os.path.join(GUEST, "programs-load"),
                        os.path.join(HERE, "tree")], check=True)
        initrd.path = clocks.with_agree(path)
    return initrd.path


def agrees(m):
    """The watcher goes round once more, and says nothing else."""
    for _ in range(2):
        line = m.expect("agree: ", 300)
        assert "DISAGREE" not in line and "LOAD FAILED" not in line, line[-500:]
        m.expect("\n", 60)


def count_ticks(m):
    """Linux's clock in ns, and its count of ticks; of several looks the one with the least time between the two."""
    text = m.command("for i in 1 2 3 4 5 6 7 8; do grep -m 2 -E '^(now at|jiffies)' /proc/timer_list; done", 120)
    looks = zip(map(int, re.findall(r"now at (\d+)", text)), map(int, re.findall(r"jiffies: (\d+)", text)))
    return min(looks, key=lambda look: look[1] * 4000000 - look[0])


def saves(identity):
    rng = random.Random(int(os.environ.get("SKEP_TEST_SEED", "5")))
    kept = []
    with contextlib.ExitStack() as machines:
        m = machines.enter_context(Machine("--kernel", kernel("cloud"), "--initrd", initrd(), "--append",
                                           "console=ttyS0 quiet", "-c", "4", "-o", f"identity={identity}",
                                           ram="512M", name="stress"))
        m.expect(PROMPT, 300)
        first = count_ticks(m)
        m.command(". /tests/load", 60)
        m.send("/agree tsc\n")
        agrees(m)
        done = {}
        for n in range(SAVES):
            time.sleep(rng.uniform(0, 0.6))
            how = rng.choice(("", "--live", "--live", "--delta", "--compress", "--suspend"))
            done[how] = done.get(how, 0) + 1
            file = os.path.join(scratch(), f"{n}.skep")
            skep("save", *how.split(), "stress", file)
            if how == "--suspend":
                m.exits(SUSPENDED, 120)
                m = machines.enter_context(Machine(argv=[SKEP, "restore", file]))
            if how != "--delta":        # which wants all from the last full one on
                while kept:
                    os.unlink(kept.pop())
            kept.append(file)
            if n % 10 == 9:
                agrees(m)
                skep("verify", file)
                print(f"# {n + 1} {done}", flush=True)
        agrees(m)
        m.send("\x03")
        m.expect(PROMPT, 120)
        m.send("kill $(jobs -p); killall stress-ng hackbench tar gzip; sleep 5; echo qui''et\n")
        m.expect("quiet", 120)
        m.expect(PROMPT, 60)
        healthy(m)
        last = count_ticks(m)
        ns, ticks = (b - a for a, b in zip(first, last))
        assert abs(ns / 4e6 - ticks) <= 3, f"{ticks} ticks of 4 ms in {ns / 1e9:.3f} s"
        print(f"# {done}: {ticks} ticks in {ns / 1e9:.1f} s", flush=True)


def checkpoints():
    saves("none")


def checkpoints_kvm():
    saves("kvm")


if __name__ == "__main__":
    run(checkpoints, checkpoints_kvm)
