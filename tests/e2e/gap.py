#!/usr/bin/python3
"""Machines that were saved long ago: --time=advance moves all clocks, and floods nobody."""
import os
import re
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import PROMPT, SKEP, SUSPENDED, TOP, Machine, command, linux, run, scratch
from looking import Patched

DAY = 86400
LINE = re.compile(r"tsc (\d+) pit (\d+) apic (\d+) rtc (\d+) seconds (\d+) pm (\d+)$")


def guest():
    out = os.path.join(scratch(), "clocks")
    lib = os.path.join(TOP, "tests/guests/lib")
    subprocess.run([os.path.join(TOP, "scripts/build-guest"), "-m", "64", "-L",
                    os.path.join(lib, "guest.ld"), "-o", out, os.path.join(lib, "start64.S"),
                    os.path.join(TOP, "tests/guests/clocks.c")], check=True)
    return out


def suspend(m, name):
    file = os.path.join(scratch(), f"{name}.skep")
    code, out = command("save", "--suspend", "--quiet", name, file)
    assert code == 0, out
    m.exits(SUSPENDED, 20)
    return file


def aged(file, seconds):
    """The same snapshot, as if the host had written it so long ago."""
    p = Patched(file, "aged.skep")
    at = p.notes.index(b"host_wall_ns") + len("host_wall_ns")
    assert p.notes[at] == 0x1b, "not a number of eight bytes any more"
    then, = struct.unpack(">Q", p.notes[at + 1:at + 9])
    p.notes[at + 1:at + 9] = struct.pack(">Q", then - seconds * 10**9)
    return p.write()


def ask(m):
    m.send("x")
    line = m.expect("\n", 20)
    return time.time(), [int(x) for x in LINE.search(line).groups()]


def every_clock():
    """TSC, RTC and PM timer by the gap; periodic interrupts go on, and at most once for all of it."""
    with Machine("--kernel", guest(), ram="16M", name="clocks") as m:
        m.expect("ready 0", 20)
        time.sleep(0.5)
        begin, before = ask(m)
        file = suspend(m, "clocks")
    for gap in 0, 3600, DAY, 365 * DAY, 30 * 365 * DAY:
        old = aged(file, gap)
        for policy in "advance", "continue":
            with Machine(argv=[SKEP, "restore", f"--time={policy}", old]) as m:
                at, now = ask(m)
                time.sleep(0.5)
                later_at, later = ask(m)
                m.kill()
            what = f"{policy} after {gap} s"
            passed = at - begin + gap if policy == "advance" else 0.1
            tsc = (now[0] - before[0]) / 1e9
            assert abs(tsc - passed) < 1, f"{what}: the TSC went on by {tsc:.2f} s, not {passed:.2f}"
            assert abs(now[4] - before[4] - passed) <= 1.5, \
                f"{what}: the RTC went on by {now[4] - before[4]} s, not {passed:.2f}"
            pm = (now[5] - before[5]) % 2**24 / 3579545
            assert abs((pm - passed + 1) % (2**24 / 3579545) - 1) < 0.5, f"{what}: the PM timer: {pm:.2f} s"
            # A second's worth at most, where the host has other things to do.
            flood = [now[i] - before[i] for i in (1, 2, 3)]
            assert max(flood) <= 100, f"{what}: interrupts that were missed came: {flood}"
            rate = [(later[i] - now[i]) / (later_at - at) for i in (1, 2, 3)]
            assert min(rate) > 15 and max(rate) < 120, f"{what}: interrupts a second: {rate}"


def a_day_later(rest, *args):
    """A day later: it is the right day, the shell answers, and no watchdog cries soft lockup."""
    with linux("cloud", "quiet", *args, ram="256M", name="debian") as m:
        m.expect(PROMPT)
        time.sleep(rest)
        file = suspend(m, "debian")
    with Machine(argv=[SKEP, "restore", "--time=advance", aged(file, DAY)]) as m:
        m.send("\n")
        m.expect(PROMPT)
        wall = int(re.search(r"is (\d+)", m.command('date "+is %s"'))[1])
        # Only the file was made older, and not what the guest had for the time of day.
        assert abs(wall - time.time() - DAY) < 3, f"the guest is {wall - time.time() - DAY:+.1f} s off"
        up = float(re.search(r"up ([0-9.]+)", m.command('read up rest </proc/uptime; echo "up $up"'))[1])
        assert DAY < up < DAY + 300, up
        time.sleep(1)
        log = m.command("dmesg | grep -c 'soft lockup'")
        assert re.search(r"^0", log, re.M), log


def debian():
    """Nobody tells this one: only while its tick is stopped, idle, it takes a leap of the clocks for nothing."""
    a_day_later(3)


def debian_kvm():
    """This one is told, and may be in the middle of anything."""
    a_day_later(0, "-o", "identity=kvm")


if __name__ == "__main__":
    run(every_clock, debian, debian_kvm)
