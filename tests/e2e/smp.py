"""Debian with several processors that run at once: all online, all at work, saved and restored meanwhile."""
import glob
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


def wakes(pid):
    """How often each of a process's threads has slept: (those that run processors, the others)."""
    vcpus, others = 0, 0
    for task in glob.glob(f"/proc/{pid}/task/*"):
        with open(task + "/status") as f:
            text = f.read()
        n = int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", text, re.M)[1])
        if re.search(r"^Name:\s+vcpu", text, re.M):
            vcpus += n
        else:
            others += n
    return vcpus, others


def interrupts(m):
    """What has woken the guest's processors: (local timers, all)."""
    rows = re.findall(r"^ *(\w+):((?: +\d+)+)", m.command("cat /proc/interrupts"), re.M)
    counts = {name: sum(map(int, numbers.split())) for name, numbers in rows}
    return counts["LOC"], sum(counts.values())


def idle_wakes_nobody():
    """Four processors without work: the host is woken for the guest's own timers and for nothing else."""
    with shell("4") as m:
        time.sleep(3)
        timers, all_interrupts = interrupts(m)
        vcpus, others = wakes(m.p.pid)
        time.sleep(10)
        # Before the guest is asked again: what that takes is the guest's alone.
        vcpus, others = (b - a for a, b in zip((vcpus, others), wakes(m.p.pid)))
        timers, all_interrupts = (b - a for a, b in zip((timers, all_interrupts), interrupts(m)))
        print(f"# in 10 s {timers} timers and {all_interrupts} interrupts of the guest, the loop woke {others} "
              f"times, processors {vcpus}", flush=True)
        assert others <= timers + 20, f"{others} wake-ups for {timers} timers"
        assert vcpus <= all_interrupts + 20, f"{vcpus} wake-ups for {all_interrupts} interrupts"


if __name__ == "__main__":
    run(two, four, cores_and_threads, domains, kvmclock, hyperv, interpreter, reset_in_place, saved_at_work,
        idle_wakes_nobody)
