#!/usr/bin/python3
"""Snapshots are of one moment, whatever the guest writes meanwhile.

The guest (tests/guests/torn.c) writes a number to thousands of pages in turn, in every way a processor
can, and looks before each store whether what is there fits its registers.  A restored machine finds a
page of another moment within its first round.
"""
import json
import os
import random
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import LONG, SKEP, TOP, Machine, command, run, scratch, skep

ROUNDS = 12


def guest():
    out = os.path.join(scratch(), "torn")
    if not os.path.exists(out):
        lib = os.path.join(TOP, "tests/guests/lib")
        subprocess.run([os.path.join(TOP, "scripts/build-guest"), "-m", "64", "-L",
                        os.path.join(lib, "guest.ld"), "-o", out, os.path.join(lib, "start64.S"),
                        os.path.join(TOP, "tests/guests/torn.c")], check=True)
    return out


def rounds(m, n, timeout=60):
    """Waits until the guest has gone round n times more, and found nothing."""
    end = time.monotonic() + timeout
    while m.text.count(b".", m.at) < n:
        if b"TORN" in m.text:
            m._read(0.5)
            m.fail(m.text[m.text.find(b"TORN"):].decode(errors="replace"))
        if time.monotonic() > end or (not m._read(0.5) and m.p.poll() is not None):
            m.fail(f"{m.text.count(b'.', m.at)} of {n} rounds came within {timeout} s: {m.stderr()}")
    m.at = len(m.text)
    assert b"TORN" not in m.text, m.text


def path(name):
    return os.path.join(scratch(), name)


def start(*args):
    m = Machine("--kernel", guest(), "--append", "64", *args, name="torn", ram="256M")
    rounds(m, 2)
    return m


def restores(file, *args):
    with Machine(argv=[SKEP, "restore", *args, file, "torn-again"]) as m:
        rounds(m, ROUNDS)


def save(m, file, *flags):
    skep("save", "--no-sync", "--quiet", *flags, "torn", file)


MODES = [], ["--live"], ["--live", "--compress"], ["--compress"]
RESTORES = [], ["--check=ram"], ["--prefault"], ["--prefetch"]


def every_mode():
    in_every_mode()


def in_virtual_time():
    in_every_mode("-o", "clock.mode=virtual")


def in_every_mode(*args):
    with start(*args) as m:
        for i, flags in enumerate(MODES):
            save(m, path("one.skep"), *flags)
            restores(path("one.skep"), *RESTORES[i % 4])
            rounds(m, 1)
        rounds(m, 2)


def chain_of_live_deltas():
    """Each link is as right as the first, also when a save between two was given up."""
    with start() as m:
        save(m, path("link0.skep"), "--live")
        for i in range(1, 9):
            if i % 3 == 2:
                give_up()
            save(m, path(f"link{i}.skep"), "--live", "--delta", *(["--compress"] if i % 2 else []))
            if i % 4 == 0:
                restores(path(f"link{i}.skep"), *RESTORES[i // 4 % 4])
        rounds(m, 2)
    flat = path("flat.skep")
    skep("snapshot", "flatten", path("link8.skep"), flat)
    restores(flat)


def give_up():
    """Kills the client of a save that is under way; a host may be too fast for that, at times."""
    file = path("never.skep")
    for _ in range(50):
        p = subprocess.Popen([SKEP, "save", "--no-sync", "--live", "--compress=9", "torn", file],
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while p.poll() is None and not json.loads(skep("status", "--json", "torn"))["save"]:
            pass
        p.kill()
        killed = p.wait() != 0
        while json.loads(skep("status", "--json", "torn"))["save"]:
            time.sleep(0.01)
        if killed:
            assert not os.path.exists(file)
            return
        os.unlink(file)
    raise AssertionError("no client of 50 was killed before its save was done")


def restored_lazily():
    """A machine that still fetches its RAM is saved live, and that one again."""
    with start() as m:
        save(m, path("a.skep"), "--live", "--compress")
        m.kill()
    for i in range(4):
        old, new = path("ab"[i % 2] + ".skep"), path("ba"[i % 2] + ".skep")
        with Machine(argv=[SKEP, "restore", *(["--check=ram"] if i & 1 else []), old]) as m:
            while command("status", "torn")[0]:
                assert m.p.poll() is None, m.stderr()
            save(m, path("delta.skep"), "--live", "--delta")
            rounds(m, 1)
            save(m, new, "--live", *(["--compress"] if i & 1 else []))
            m.kill()
        restores(path("delta.skep"))
    restores(new)


def at_random():
    """As long as SKEP_TEST_LONG gives it time."""
    r = random.Random(int(os.environ.get("SKEP_TEST_SEED", "1")))
    end = time.monotonic() + (120 if LONG else 8)
    m, links, n = start(), [], 0
    try:
        while time.monotonic() < end:
            flags = r.choice(MODES)[:]
            delta = links and len(links) < 12 and r.random() < 0.7
            file = path(f"r{n}.skep")
            n += 1
            if not delta:
                for old in links:
                    os.unlink(old)
                links = []
            save(m, file, *flags, *(["--delta"] if delta else []))
            links.append(file)
            if r.random() < 0.3:
                restores(file, *r.choice(RESTORES))
            if r.random() < 0.1:
                m.__exit__()
                m = Machine(argv=[SKEP, "restore", file, "torn"])
                rounds(m, 1)
        rounds(m, 2)
        print(f"# {n} saves", flush=True)
    finally:
        m.__exit__()


if __name__ == "__main__":
    run(every_mode, in_virtual_time, chain_of_live_deltas, restored_lazily, at_random)
