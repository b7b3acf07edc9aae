"""A machine that writes to its disk without end, checkpointed every second with --disks, killed and restored a
hundred times: no write that it remembers is lost, none is there that it has not made.

tests/e2e/guests/scribe.c knows what it wrote, in memory only, and looks at what the disk gives back.
"""
import os
import random
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../e2e"))
from lib import HERE, PROMPT, SKEP, Machine, Skip, command, linux, run, scratch  # noqa: E402

ROUNDS = int(os.environ.get("SKEP_TEST_ROUNDS", "100"))
SEED = int(os.environ.get("SKEP_TEST_SEED", "1"))


def path(name):
    return os.path.join(scratch(), name)


def checkpoint():
    """The machine may be killed meanwhile, and then the one before it counts."""
    return subprocess.Popen([SKEP, "save", "--disks", "--live", "--quiet", "e2e", path("c.skep")],
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def watch(m, seconds):
    """What scribe says for so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not m._read(end - time.monotonic()):
            m.fail("the machine ended")
    if b"WRONG" in m.text:
        m.fail("memory and disk are not of one moment")



def hundred_restores():
    rng = random.Random(SEED)
    tree = path("tree")
    os.mkdir(tree)
    if subprocess.run(["gcc", "-O2", "-static", "-o", tree + "/scribe", HERE + "/guests/scribe.c"]).returncode:
        raise Skip("a C compiler with static libraries")
    for name, size in (("a.img", 32 << 20), ("b.img", 64 << 20)):
        with open(path(name), "wb") as f:
            f.truncate(size)
    env = dict(os.environ, PATH="/usr/sbin:/sbin:" + os.environ["PATH"])
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, path("a.img")], check=True, env=env)
    with linux("cloud", "quiet", "-s", f"4,virtio-blk,{path('a.img')},ro",
               "-s", f"5,virtio-blk,{path('b.img')},overlay={path('b.ovl')}",
               modules=("virtio_pci", "virtio_blk")) as m:
        m.expect(PROMPT)
        m.command("mkdir -p /m; mount -t ext4 -o ro,noload /dev/vda /m")
        m.send("/m/scribe /dev/vdb\n")
        m.expect("scribe: ")
        assert checkpoint().wait(60) == 0
    worst = 0
    for n in range(ROUNDS):
        with Machine(argv=[SKEP, "restore", path("c.skep")]) as m:
            m.expect("scribe: ", 60)
            savers = []
            for _ in range(rng.randrange(3)):
                watch(m, 1)
                savers.append(checkpoint())
            watch(m, rng.random())
            m.kill()
            for s in savers:
                s.wait(60)
            worst = max(worst, os.path.getsize(path("b.ovl")))
            if b"WRONG" in m.text:
                m.fail(f"round {n}")
        code, out = command("verify", "--quiet", path("c.skep"))
        assert code == 0, f"round {n}: {out}"
    print(f"# {ROUNDS} rounds; the overlay of a disk of 64 MiB had up to {worst >> 20} MiB", flush=True)
    assert worst < 512 << 20, "the overlay grows without end"


run(hundred_restores)
