"""Debian guests saved and restored: chains, modes in every order, clones, and what time it is."""
import json
import os
import re
import subprocess
import time

from lib import ERROR, LONG, PROMPT, SKEP, SUSPENDED, Machine, command, linux, run, scratch, skep


class Restored(Machine):
    """A machine from a snapshot, its first serial port on our pipes."""

    def __init__(self, path, *args, **kw):
        super().__init__(argv=[SKEP, "restore", *args, path], **kw)


def path(name):
    return os.path.join(scratch(), name)


def shell(ram="512M", name="e2e"):
    m = linux("cloud", "quiet", ram=ram, name=name)
    m.expect(PROMPT)
    return m


LOOP = ("i=0; while :; do i=$((i+1)); read up rest </proc/uptime; echo \"tick $i $up .\"; "
        "sleep 0.05; done")
TICK = re.compile(rb"tick (\d+) ([0-9.]+) \.")


def ticks(m, n, timeout=60):
    """Reads until n whole ticks have come since the last call; returns [(number, uptime)]."""
    end = time.monotonic() + timeout
    while True:
        found = TICK.findall(m.text[m.at:])
        if len(found) >= n:
            m.at = [x.end() for x in TICK.finditer(m.text, m.at)][-1]
            return [(int(a), float(b)) for a, b in found]
        if time.monotonic() > end or (not m._read(0.5) and m.p.poll() is not None):
            m.fail(f"{len(found)} of {n} ticks came within {timeout} s")


def rest(m):
    """The ticks up to the end of the console."""
    m.exits(SUSPENDED, 60)
    return [(int(a), float(b)) for a, b in TICK.findall(m.text[m.at:])]


def consecutive(seen):
    numbers = [a for a, _ in seen]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), \
        f"ticks were lost or told twice: {numbers}"
    ups = [b for _, b in seen]
    assert ups == sorted(ups), f"the guest's uptime went back: {ups}"


def long_chain():
    """4 GiB in two regions, a running shell loop: suspended and restored again and again."""
    snap, seen, times = path("chain.skep"), [], 50 if LONG else 15
    with shell("4G") as m:
        m.send(LOOP + "\n")
        seen += ticks(m, 3)
        skep("save", "--suspend", "e2e", snap)
        seen += rest(m)
        partial = m.text[m.at:][m.text[m.at:].rfind(b"tick"):] if seen else b""
    for i in range(times):
        with Restored(snap) as m:
            # A line that was cut in two by the save is joined here.
            m.text = partial if not TICK.search(partial) else b""
            seen += ticks(m, 2)
            skep("save", "--suspend", "e2e", snap)
            seen += rest(m)
            tail = m.text[m.at:]
            partial = tail[tail.rfind(b"tick"):] if b"tick" in tail else b""
            if TICK.search(partial):
                partial = tail[tail.rfind(b"\n") + 1:]
    consecutive(seen)
    print(f"# {len(seen)} ticks in {times + 1} processes", flush=True)


MODES = {
    "plain": [], "live": ["--live"], "compressed": ["--compress"],
    "live-compressed": ["--live", "--compress"],
}


def every_pair_of_modes():
    """Saved in one mode, restored lazily, saved in another, restored again; deltas on top."""
    with shell("512M") as m:
        m.send(LOOP + "\n")
        ticks(m, 2)
        for mode, flags in MODES.items():
            skep("save", *flags, "e2e", path(f"{mode}.skep"))
        m.kill()
    for mode in MODES:
        for second, flags in MODES.items():
            out, delta = path("second.skep"), path("delta.skep")
            with Restored(path(f"{mode}.skep"), "--check=ram" if second == "live" else "--time=continue") as m:
                ticks(m, 2)
                skep("save", "--delta", *flags, "e2e", delta)
                ticks(m, 2)
                skep("save", *flags, "e2e", out)
                ticks(m, 1)
            for again in out, delta:
                with Restored(again) as m:
                    got = ticks(m, 3)
                    consecutive(got[1:])
            skep("verify", out)
            skep("verify", delta)


def delta_chain():
    """A chain of deltas of a running loop restores, is verified, and flattens to the same machine."""
    files = [path(f"link{i}.skep") for i in range(6)]
    with shell("512M") as m:
        m.send(LOOP + "\n")
        ticks(m, 2)
        skep("save", "e2e", files[0])
        for i, f in enumerate(files[1:]):
            ticks(m, 1)
            skep("save", "--delta", *(["--live"] if i % 2 else []), *(["--compress"] if i % 3 == 1 else []),
                 "e2e", f)
    with Restored(files[-1]) as m:
        ticks(m, 5)
    flat = path("flat.skep")
    skep("snapshot", "flatten", files[-1], flat)
    code, out = command("diff", "--json", files[-1], flat)
    assert json.loads(out)["ram_pages"] == 0, out[-300:]
    os.unlink(files[2])
    code, out = command("restore", files[-1])
    assert code == ERROR and "link2" in out, f"a broken chain: {code} {out}"
    with Restored(flat) as m:
        ticks(m, 3)


def working_set():
    """What the guest wrote between two snapshots is recorded, and --prefetch has it ready."""
    snap = path("ws.skep")
    with shell("256M") as m:
        m.send(LOOP + "\n")
        ticks(m, 2)
        skep("save", "--suspend", "e2e", snap)
        rest(m)
    written = lambda: json.loads(skep("inspect", "--json", snap))["manifest"]["written"]
    assert not written(), "before the first snapshot everything was written"
    with Restored(snap) as m:
        ticks(m, 2)
        skep("save", "--suspend", "e2e", snap)
        rest(m)
    assert written(), "the pages of the loop are not recorded"
    for flags in ["--prefetch"], ["--prefetch", "--check=ram"], ["--prefault"]:
        with Restored(snap, *flags) as m:
            consecutive(ticks(m, 3)[1:])


def over_its_own_file():
    """Saved over the file it was restored from, again and again."""
    snap = path("own.skep")
    with shell("256M") as m:
        m.send(LOOP + "\n")
        ticks(m, 2)
        skep("save", "--suspend", "e2e", snap)
        rest(m)
    for _ in range(3):
        with Restored(snap) as m:
            ticks(m, 2)
            for _ in range(3):
                skep("save", "e2e", snap)
                ticks(m, 1)
            skep("save", "--suspend", "e2e", snap)
            rest(m)
    skep("verify", snap)


def twenty_clones():
    """20 machines from one file at once: each goes on by itself, under its own name."""
    snap = path("clone.skep")
    with shell("256M", name="hive") as m:
        m.send(LOOP + "\n")
        ticks(m, 3)
        skep("save", "--suspend", "hive", snap)
        rest(m)
    code, out = command("clone", "-n", "2", snap)
    assert code == ERROR and "lpc.com1.path" in out, f"clones that share a terminal: {code} {out}"
    p = subprocess.Popen([SKEP, "clone", "-n", "20", "-o", f"lpc.com1.path={path('')}%(name).log", snap],
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        logs = [path(f"hive-{i}.log") for i in range(1, 21)]
        end = time.monotonic() + 120
        def far(f):
            return os.path.exists(f) and len(TICK.findall(open(f, "rb").read())) >= 4
        while not all(far(f) for f in logs):
            assert time.monotonic() < end and p.poll() is None, \
                f"{sum(map(far, logs))} of 20 clones run: {p.poll()} {p.stdout.read()[-500:] if p.poll() is not None else ''}"
            time.sleep(0.1)
        names = {v["name"] for v in json.loads(skep("list", "--json"))}
        assert names >= {f"hive-{i}" for i in range(1, 21)}, f"the machines that run: {names}"
        for f in logs:
            consecutive([(int(a), float(b)) for a, b in TICK.findall(open(f, "rb").read())])
        for i in range(1, 21):
            skep("stop", "--force", f"hive-{i}")
        out, _ = p.communicate(timeout=60)
        assert p.returncode == 0, out[-500:]
    finally:
        p.terminate()       # twice: the second one stops them at once
        p.terminate()
        p.kill()


CLOCKS = "read up rest </proc/uptime; date +\"clocks %s $up .\""


def clocks(m):
    out = m.command(CLOCKS)
    wall, up = re.search(r"clocks ([0-9.]+) ([0-9.]+) \.", out).groups()
    return float(wall), float(up)


def time_policies():
    """--time=continue: no gap, a wall clock that lags; --time=advance: all clocks move by the gap."""
    snap, gap = path("time.skep"), 8
    with shell("256M") as m:
        before = clocks(m)
        host_before = time.time()
        assert abs(before[0] - host_before) < 2, f"the guest says {before[0]}, the host {host_before}"
        skep("save", "--suspend", "e2e", snap)
        rest(m)
    saved = time.time()
    time.sleep(gap)
    for policy in "continue", "advance":
        with Restored(snap, f"--time={policy}") as m:
            host = time.time()
            m.send("\n")
            m.expect(PROMPT)
            wall, up = clocks(m)
            ran = (saved - host_before) + (time.time() - host)
            passed = time.time() - host_before
            want = passed if policy == "advance" else ran
            assert abs(up - before[1] - want) < 2, \
                f"{policy}: uptime went on by {up - before[1]:.1f} s, {want:.1f} were due"
            assert abs(wall - before[0] - want) < 2, \
                f"{policy}: the wall clock went on by {wall - before[0]:.1f} s, {want:.1f} were due"
            # Watchdogs would have said so.
            log = m.command("dmesg | tail -n 5")
            assert "stall" not in log and "soft lockup" not in log, log
            m.kill()


def refusals():
    """What a restore may not change, and files in use."""
    snap = path("refuse.skep")
    with shell("256M", name="solid") as m:
        skep("save", "solid", snap)
        code, out = command("restore", snap)
        assert code == ERROR and "solid" in out, f"a name in use: {code} {out}"
        code, out = command("save", "--delta", "solid", snap)
        assert code == ERROR and "delta" in out, f"a delta over its own parent: {code} {out}"
        m.kill()
    for what, word in (("memory.size=1G", "memory.size"), ("cpus=2", "cpus"), ("seed=3", "seed"),
                       ("nonsense=1", "nonsense")):
        code, out = command("restore", "-o", what, snap)
        assert code == ERROR and word in out, f"-o {what}: {code} {out}"
    code, out = command("restore", "--exact", "--time=advance", snap)
    assert code == ERROR and "--exact" in out, out
    code, out = command("clone", "--exact", snap)
    assert code == ERROR and "--exact" in out, out
    code, out = command("restore", path("there-is-none.skep"))
    assert code == ERROR and "there-is-none" in out, out
    code, out = command("restore", SKEP)
    assert code == ERROR and "snapshot" in out.lower(), out


def demo_cycle():
    """skep demo: saved, killed, verified, restored, and nothing noticed."""
    out = skep("demo", timeout=60)
    assert "tick 8:" in out and "noticed nothing" in out and "is killed" in out, out


if __name__ == "__main__":
    run(demo_cycle, refusals, working_set, over_its_own_file, time_policies, twenty_clones, delta_chain, every_pair_of_modes,
        long_chain)
