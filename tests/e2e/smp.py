"""Debian with several processors that run at once: all online, all at work, saved and restored meanwhile."""
import os
import re
import time

from lib import POWEROFF, PROMPT, SKEP, SUSPENDED, Machine, linux, run, scratch, skep

# What a kernel says when a processor, its clock or an interrupt was lost.
BAD = re.compile(r"rcu.*stall|soft lockup|hard LOCKUP|BUG:|\bOops|clocksource.*unstable|inconsistent|"
                 r"TSC.*unstable|irq.*nobody cared|timed out waiting|failed to come online|do_IRQ|call trace", re.I)
BUSY = ("n=0; for c in $(seq 0 $(($(nproc) - 1))); do (while :; do :; done) & done; sleep 1; "
        "grep '^cpu[0-9]' /proc/stat")


def healthy(m):
    bad = [line for line in m.command("dmesg").splitlines() if BAD.search(line)]
    assert not bad, f"dmesg says {bad[:3]}"


def user_times(text):
    return {c: int(t) for c, t in re.findall(r"^(cpu\d+) (\d+)", text, re.M)}


def shell(cpus, *args, **kw):
    m = linux("cloud", "quiet", "-c", cpus, *args, **kw)
    m.expect(PROMPT, 200)
    return m


def online(cpus, n, packages, *args):
    with shell(cpus, *args) as m:
        assert m.command("nproc").strip() == str(n)
        assert m.command("cat /sys/devices/system/cpu/online").strip() == f"0-{n - 1}"
        got = m.command("cat /sys/devices/system/cpu/cpu*/topology/physical_package_id | sort -u")
        assert len(re.findall(r"^\d+$", got, re.M)) == packages, f"{got} are {packages} packages"
        before = user_times(m.command(BUSY, 120))
        time.sleep(1)
        after = user_times(m.command("grep '^cpu[0-9]' /proc/stat", 120))
        assert len(before) == n
        idle = [c for c in before if after[c] <= before[c]]
        assert not idle, f"{idle} did nothing: {before}, {after}"
        # Jobs on all of them, and messages between them: what a processor waits for comes.
        m.command("kill $(jobs -p); wait")
        out = m.command("for i in $(seq 40); do (seq 200 | sort -rn | head -n 1) & done | sort | uniq -c; wait", 200)
        assert re.search(r"^ *40 200$", out, re.M), out
        healthy(m)
        m.send("poweroff\n")
        m.exits(POWEROFF, 60)


def two():
    online("2", 2, 2)


def four():
    online("4", 4, 4)


def cores_and_threads():
    online("6,sockets=1,cores=3,threads=2", 6, 1)


def domains():
    """The kernel's nodes are the domains that were asked for, also after a restore."""
    snap = os.path.join(scratch(), "domains.skep")

    def nodes(m):
        cpus = m.command("cat /sys/devices/system/node/node?/cpulist")
        sizes = re.findall(r"(\d+) kB", m.command("grep MemTotal /sys/devices/system/node/node?/meminfo"))
        assert cpus.split() == ["0,3", "1-2"] and len(sizes) == 2, f"{cpus} {sizes}"
        assert int(sizes[0]) >> 10 < 128 and 256 < int(sizes[1]) >> 10 <= 384, sizes
    with shell("4,sockets=2,cores=2", "-n", "id=0,size=128M,cpus=0,3", "-n", "id=1,size=384M,cpus=1-2",
               name="domains") as m:
        nodes(m)
        skep("save", "--suspend", "domains", snap)
        m.exits(SUSPENDED, 60)
    with Machine(argv=[SKEP, "restore", snap]) as m:
        m.send("\n")
        m.expect(PROMPT, 60)
        nodes(m)


def kvmclock():
    online("2", 2, 2, "-o", "identity=kvm")


def hyperv():
    online("2", 2, 2, "-o", "identity=hyperv")


def interpreter():
    online("2", 2, 2, "-o", "soft.tier=interpreter")


def reset_in_place():
    """Power on, reboot within the machine: the others wait to be started again."""
    with shell("2", "-o", "on_reboot=restart") as m:
        m.send("reboot -f\n")
        m.expect(PROMPT, 200)
        assert m.command("nproc").strip() == "2"
        healthy(m)


TICKS = ("i=0; while :; do i=$((i+1)); read up rest </proc/uptime; echo \"tick $i $up .\"; sleep 0.1; done")


def ticks(m, n, timeout=120):
    """Reads n ticks; returns the numbers."""
    seen = []
    while len(seen) < n:
        m.expect("tick ", timeout)
        word = m.expect(" ", timeout)
        if word.isdigit():      # and not the line as it was typed
            seen.append(int(word))
    return seen


def saved_at_work():
    """Four processors at work, saved as they run and suspended: each restored one goes on."""
    snap = os.path.join(scratch(), "smp.skep")
    live = os.path.join(scratch(), "live.skep")
    with shell("4", name="smp") as m:
        m.command(BUSY, 120)
        m.send(TICKS + "\n")
        seen = ticks(m, 3)
        for _ in range(3):
            skep("save", "--live", "smp", live)
            seen += ticks(m, 2)
        skep("pause", "smp")
        skep("resume", "smp")
        skep("save", "--suspend", "smp", snap)
        m.exits(SUSPENDED, 60)
    skep("verify", live, timeout=120)
    for _ in range(4):
        with Machine(argv=[SKEP, "restore", snap]) as m:
            ticks(m, 3)
            skep("save", "--suspend", "smp", snap)
            m.exits(SUSPENDED, 60)
    with Machine(argv=[SKEP, "restore", snap]) as m:
        ticks(m, 2)
        m.send("\x03")
        m.expect(PROMPT, 60)
        before = user_times(m.command("grep '^cpu[0-9]' /proc/stat", 120))
        time.sleep(1)
        after = user_times(m.command("grep '^cpu[0-9]' /proc/stat", 120))
        assert len(before) == 4 and all(after[c] > before[c] for c in before), f"{before}, {after}"
        healthy(m)


def idle_wakes_nobody():
    """Four processors without work take next to no time of the host's."""
    with shell("4") as m:
        time.sleep(2)

        def used():
            with open(f"/proc/{m.p.pid}/stat") as f:
                fields = f.read().rsplit(")", 1)[1].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

        before = used()
        time.sleep(5)
        spent = used() - before
        print(f"# {spent / 5 * 100:.1f} % of a host processor", flush=True)
        assert spent < 1.0, f"an idle machine took {spent} s of 5"


if __name__ == "__main__":
    run(two, four, cores_and_threads, domains, kvmclock, hyperv, interpreter, reset_in_place, saved_at_work,
        idle_wakes_nobody)
