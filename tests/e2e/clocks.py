#!/usr/bin/python3
"""All clocks of a Debian guest agree within a millisecond, with each clocksource in turn, and none goes
back: before, across and after pauses, saves, restores and clones, whatever the policy for time.

tests/e2e/guests/agree.c watches from inside, through all of it; here is what happens to it.
"""
import os
import re
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import HERE, PROMPT, SKEP, SUSPENDED, Machine, Skip, command, initrd, kernel, run, scratch, skep

SOURCES = {
    "none": ("tsc", "hpet", "acpi_pm"),
    "kvm": ("kvm-clock", "tsc", "hpet", "acpi_pm"),
    "hyperv": ("hyperv_clocksource_tsc_page", "tsc", "hpet", "acpi_pm"),
    "pit": ("tsc", "acpi_pm"),
}
# Amd64's Linux takes the 8254 for no clock source, but for its tick.
EVENTS = "/sys/devices/system/clockevents/clockevent0/current_device"


def newc(name, mode, data=b""):
    """A member of a cpio archive as Linux unpacks it."""
    fields = [0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
    head = b"070701" + b"".join(b"%08X" % f for f in fields) + name.encode() + b"\0"
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


def with_agree(base=None):
    """An initramfs (the tests'), and behind it another one with the program."""
    out, program = os.path.join(scratch(), "agree.gz"), os.path.join(scratch(), "agree")
    if os.path.exists(out):
        return out
    built = subprocess.run(["gcc", "-static", "-O2", "-Wall", "-Wextra", "-Werror",
                            "-Wno-missing-field-initializers", "-o", program,
                            os.path.join(HERE, "guests/agree.c")], capture_output=True, text=True)
    if "cannot find -lc" in built.stderr:
        raise Skip("a static C library (libc6-dev)")
    assert built.returncode == 0, built.stderr
    with open(base or initrd("cloud"), "rb") as f:
        base = f.read()
    with open(program, "rb") as f:
        more = newc("agree", 0o100755, f.read()) + newc("TRAILER!!!", 0)
    with open(out, "wb") as f:
        f.write(base + b"\0" * (-len(base) % 4) + more)
    return out


def agrees(m, sources, timeout=120):
    """Each source comes round once more, and the RTC, and the guest finds nothing."""
    seen, worst, end = 0, 0, time.monotonic() + timeout
    while seen < len(sources) + 1:
        line = m.expect("\n", max(end - time.monotonic(), 1))
        if "DISAGREE" in line:
            m.fail(line)
        got = re.search(r"agree: (\S+): ([-0-9 ]+) ns", line)
        if got:
            seen += 1
            worst = max([worst] + [abs(int(n)) for n in got[2].split()])
    return worst


def watched(case, *args, append=""):
    sources = SOURCES[case]
    name = f"clocks-{case}"
    snap = os.path.join(scratch(), f"{name}.skep")
    with Machine("--kernel", kernel("cloud"), "--initrd", with_agree(), "--append", f"console=ttyS0 quiet {append}",
                 *args, ram="256M", name=name) as m:
        m.expect(PROMPT)
        if case == "pit":
            got = m.command(f"cat {EVENTS}")
            assert got.split() == ["pit"], got
        m.send(f"/agree {' '.join(sources)}\n")
        m.expect("agree: ", 60)
        worst = [agrees(m, sources)]
        skep("pause", name)
        time.sleep(1)
        skep("resume", name)
        worst.append(agrees(m, sources))
        skep("pause", name)
        time.sleep(1)
        skep("resume", "--time=advance", name)
        worst.append(agrees(m, sources))
        skep("save", "--live", name, os.path.join(scratch(), "unused.skep"))
        worst.append(agrees(m, sources))
        skep("save", "--suspend", name, snap)
        m.exits(SUSPENDED, 60)
    time.sleep(1.5)
    for policy in ("continue", "advance"):
        with Machine(argv=[SKEP, "restore", f"--time={policy}", snap]) as m:
            print(f"# {case} --time={policy}", flush=True)
            worst.append(agrees(m, sources))
            skep("save", name, os.path.join(scratch(), "again.skep"))
            worst.append(agrees(m, sources))
    with Machine(argv=[SKEP, "restore", "--exact", os.path.join(scratch(), "again.skep")]) as m:
        worst.append(agrees(m, sources))
    for policy in "continue", "advance":
        clone(snap, name, sources, policy)
    print(f"# {case}: {', '.join(sources)}: at most {max(worst) / 1000:.0f} us apart", flush=True)


def clone(snap, name, sources, policy):
    """Two at once, each with a console of its own."""
    log = os.path.join(scratch(), f"%(name)-{policy}.log")
    with subprocess.Popen([SKEP, "clone", f"--time={policy}", "-n", "2", "-o", f"lpc.com1.path={log}", snap],
                          stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          text=True) as p:
        try:
            for n in 1, 2:
                path, end = log.replace("%(name)", f"{name}-{n}"), time.monotonic() + 120
                text = ""
                while text.count("agree: ") < len(sources) + 1:
                    assert p.poll() is None and time.monotonic() < end, f"clone {n}: {text[-300:]}"
                    time.sleep(0.2)
                    if os.path.exists(path):
                        with open(path, encoding="utf-8") as f:
                            text = f.read()
                    assert "DISAGREE" not in text, text
        finally:
            for n in 1, 2:
                command("stop", "--force", f"{name}-{n}")
            p.terminate()


def plain():
    watched("none")


def pit():
    watched("pit", append="hpet=disable nolapic")


def kvm():
    watched("kvm", "-o", "identity=kvm", "-c", "2")


def hyperv():
    watched("hyperv", "-o", "identity=hyperv", "-c", "2")


if __name__ == "__main__":
    run(plain, pit, kvm, hyperv)
