"""Several processors for an hour: eight of them, a hundred boots, two hundred saves of four at work."""
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from lib import BUILD, POWEROFF, PROMPT, SKEP, SUSPENDED, TIERS, Machine, guest_test, run, scratch, skep  # noqa: E402
from smp import BUSY, TICKS, healthy, online, shell, ticks  # noqa: E402


def eight():
    online("8,sockets=2,cores=2,threads=2", 8, 2)


def hundred_boots():
    for n in range(100):
        out = guest_test("cloud", "hello", "-c", str(2 + n % 3), timeout=180)
        assert "hello" in out, f"boot {n}: {out!r}"


def two_hundred_saves():
    """Suspended and restored while all four are at work: nothing is lost, and the kernel noticed nothing."""
    snap = os.path.join(scratch(), "smp.skep")
    with shell("4", name="smp") as m:
        m.command(BUSY, 120)
        m.send(TICKS + "\n")
        last = ticks(m, 3)[-1]
        skep("save", "--suspend", "smp", snap)
        m.exits(SUSPENDED, 60)
    for n in range(200):
        with Machine(argv=[SKEP, "restore", snap]) as m:
            seen = ticks(m, 2)
            assert seen[0] > last and seen == list(range(seen[0], seen[0] + 2)), f"save {n}: {last}, {seen}"
            last = seen[-1]
            skep("save", "--suspend", "smp", snap)
            m.exits(SUSPENDED, 60)
    with Machine(argv=[SKEP, "restore", snap]) as m:
        ticks(m, 1)
        m.send("\x03")
        m.expect(PROMPT, 60)
        healthy(m)
        m.send("poweroff\n")
        m.exits(POWEROFF, 120)


def litmus():
    """Millions of outcomes of each test, in each tier, with two processors and with four."""
    for cpus in "2", "4":
        for tier in TIERS:
            p = subprocess.run([os.path.join(BUILD, "../tests/guests/run"), "--tier", tier,
                                os.path.join(BUILD, "tests/guests/litmus")],
                               env=dict(os.environ, SKEP=SKEP, SKEP_ARGS=f"-c {cpus}", GUEST_OPTIONS="long",
                                        GUEST_TIMEOUT="3600"), capture_output=True, text=True)
            if p.returncode == 77:
                print(f"# {p.stdout.strip()}")
                continue
            assert p.returncode == 0 and re.search(r"^PASSED", p.stdout, re.M), p.stdout[-800:]
            print(f"# {tier}\n# " + p.stdout.replace("\n", "\n# "), flush=True)


if __name__ == "__main__":
    run(eight, hundred_boots, two_hundred_saves, litmus)
