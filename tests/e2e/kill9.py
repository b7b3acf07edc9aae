"""kill -9 at random moments of a save: of the machine, and of the command that asked for it.

The target is the old snapshot or the new one, whole; nothing lies beside it but the one name that
snapshot/target.h documents, and that only until the next save; and where the machine was not killed it
goes on.  The guest (tests/faults/guest.S) checks its memory all the time and tells a '!' if it must.
"""
import os
import random
import re
import subprocess
import time

from lib import LONG, SKEP, SUSPENDED, Machine, freestanding, run, scratch, skep

SEED = int(os.environ.get("SKEP_TEST_SEED", "1"))
MODES = [[], ["--live"], ["--compress"], ["--suspend"], ["--delta"], ["--live", "--delta"]]
TEMPORARY = re.compile(r"\.skep-[0-9a-f]{16}\.tmp")


def place(name=""):
    where = os.path.join(scratch(), "snapshots")
    os.makedirs(where, exist_ok=True)
    return os.path.join(where, name)


def console():
    return os.path.join(scratch(), "console")


def rounds():
    """How often the guest has told a round; it must not have told of an error."""
    if not os.path.exists(console()):
        return 0
    with open(console(), "rb") as f:
        text = f.read()
    assert b"!" not in text, "the guest found its memory changed"
    return text.count(b"\n")


def goes_on(m, timeout=20):
    was, end = rounds(), time.monotonic() + timeout
    while rounds() - was < 2:
        if m.p.poll() is not None or time.monotonic() > end:
            m.fail(f"the guest does not go on ({m.p.poll()})")
        time.sleep(0.001)


def restored(path):
    if os.path.exists(console()):
        os.unlink(console())
    m = Machine(argv=[SKEP, "restore", "-o", f"lpc.com1.path={console()}", path])
    goes_on(m)
    return m


def make_base():
    """The snapshot that all machines here come from, and a first target."""
    if os.path.exists(place("base")):
        return
    with Machine("--kernel", freestanding("notices"), ram="32M",
                 console=("-l", f"com1,{console()}")) as m:
        goes_on(m, 60)
        skep("save", "e2e", place("base"))
        skep("save", "e2e", place("target"))


def identity(path):
    st = os.stat(path)
    return st.st_ino, st.st_size, st.st_mtime_ns


def strays():
    return sorted(set(os.listdir(place())) - {"base", "target"})


def save(*flags):
    return subprocess.Popen([SKEP, "save", "--quiet", *flags, "e2e", place("target")],
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def duration(flags):
    """Of a whole save from a machine that has just been restored, in seconds."""
    with restored(place("base")) as m:
        begin = time.monotonic()
        p = save(*flags)
        _, err = p.communicate(timeout=60)
        assert p.returncode == 0, err
        took = time.monotonic() - begin
        if "--suspend" in flags:
            m.exits(SUSPENDED, 20)
    return took


def old_or_new(old, seen):
    """The target after a kill: counts what it is, and looks whether it is whole."""
    new = identity(place("target"))
    seen["old" if new == old else "new"] += 1
    skep("verify", place("target"))


def machine_killed():
    """The machine's process, at any moment of a save."""
    make_base()
    rng = random.Random(SEED)
    took = {i: duration(flags) for i, flags in enumerate(MODES)}
    seen = {"old": 0, "new": 0}
    for i in range(1000 if LONG else 80):
        flags = MODES[i % len(MODES)]
        old = identity(place("target"))
        with restored(place("base")) as m:
            p = save(*flags)
            time.sleep(rng.uniform(0, 1.1 * took[i % len(MODES)]))
            m.kill()
            _, err = p.communicate(timeout=30)
        assert p.returncode in (0, 4), f"the command ended with {p.returncode}: {err}"
        assert p.returncode == 0 or err.startswith(b"skep: "), err
        assert p.returncode or identity(place("target")) != old, "saved, but the file is the old one"
        assert not strays(), f"left behind: {strays()}"
        old_or_new(old, seen)
        if i % 40 == 39:
            with restored(place("target")) as m:
                goes_on(m)
    print(f"# seed {SEED}: a save took {1000 * min(took.values()):.0f} to "
          f"{1000 * max(took.values()):.0f} ms; afterwards the old file {seen['old']} times, the new "
          f"one {seen['new']} times", flush=True)
    assert seen["old"] and seen["new"]


def saved_again(m):
    """What the last command left is given up by the machine in a moment."""
    end = time.monotonic() + 20
    while True:
        p = save()
        _, err = p.communicate(timeout=60)
        if p.returncode == 0:
            return
        if b"being saved already" not in err or time.monotonic() > end:
            m.fail(f"not saved again: {err}")


def client_killed():
    """The command's process, at 100 moments; the machine lives through all of them."""
    make_base()
    rng = random.Random(SEED + 1)
    took = {i: duration(flags) for i, flags in enumerate(MODES)}
    seen, left = {"old": 0, "new": 0}, 0
    m = restored(place("base"))
    try:
        for i in range(500 if LONG else 100):
            flags = MODES[i % len(MODES)]
            if "--delta" in flags:
                # Not on the target itself.
                skep("save", "--quiet", "e2e", place("base"))
            old = identity(place("target"))
            p = save(*flags)
            time.sleep(rng.uniform(0, 1.1 * took[i % len(MODES)]))
            p.kill()
            p.communicate(timeout=30)
            old_or_new(old, seen)
            assert len(strays()) <= 1 and all(TEMPORARY.fullmatch(s) for s in strays()), strays()
            left += len(strays())
            if "--suspend" in flags:
                # It may have come to the end, or have been taken back.
                try:
                    assert m.p.wait(0.2) == SUSPENDED
                    assert identity(place("target")) != old
                    m.kill()
                    m = restored(place("target"))
                except subprocess.TimeoutExpired:
                    pass
            goes_on(m)
            saved_again(m)
            assert not strays(), f"left behind after another save: {strays()}"
    finally:
        m.kill()
    skep("verify", place("target"))
    print(f"# seed {SEED}: the old file {seen['old']} times, the new one {seen['new']} times; a "
          f"temporary name was left {left} times", flush=True)
    assert seen["old"] and seen["new"]


if __name__ == "__main__":
    run(machine_killed, client_killed)
