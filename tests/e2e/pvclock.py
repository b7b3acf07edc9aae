#!/usr/bin/python3
"""identity=: paravirtual clocks of Debian and of guests of our own, over save, restore and pause."""
import os
import re
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import (BUILD, POWEROFF, PROMPT, SKEP, SUSPENDED, Machine, Skip, linux, run, scratch,
                 skep)
SOURCES = "/sys/devices/system/clocksource/clocksource0"
EXIT_PASSED = 1


class Restored(Machine):
    def __init__(self, path, *args, **kw):
        super().__init__(argv=[SKEP, "restore", *args, path], **kw)


def own_guest(name, identity):
    """A guest of tests/guests is saved while it waits to be told, and told by the restore only."""
    elf = os.path.join(BUILD, "tests/guests", name)
    if not os.path.exists(elf):
        raise Skip(f"{elf}; ninja builds it")
    for clock in "realtime", "virtual":
        snap = os.path.join(scratch(), f"{name}-{clock}.skep")
        with Machine("-o", f"identity={identity}", "-o", f"clock.mode={clock}", "-o", "lpc.debug_exit=true",
                     "--kernel", elf, "--append", "restored", ram="64M", name=name) as m:
            m.expect("waiting", 60)
            skep("save", "--live", name, os.path.join(scratch(), "unseen.skep"))
            skep("save", "--suspend", name, snap)
            m.exits(SUSPENDED, 60)
            assert b"PASSED" not in m.text, "the guest noticed a save"
        with Restored(snap, "--exact", name=name) as m:
            time.sleep(1)
            assert m.p.poll() is None, "the guest noticed an exact restore"
            m.kill()
        for policy in ("continue", "advance") if clock == "realtime" else ("continue",):
            with Restored(snap, f"--time={policy}", name=name) as m:
                m.exits(EXIT_PASSED, 60)
                assert b"PASSED" in m.text, m.text[-500:]


def own_kvmclock():
    own_guest("pvclock", "kvm")


def own_hyperv():
    own_guest("hyperv", "hyperv")


def paused():
    """A pause by somebody is told by kvmclock's flag, for the guest's watchdogs."""
    elf = os.path.join(BUILD, "tests/guests/pvclock")
    if not os.path.exists(elf):
        raise Skip(f"{elf}; ninja builds it")
    with Machine("-o", "identity=kvm", "-o", "lpc.debug_exit=true", "--kernel", elf, "--append", "restored",
                 ram="64M", name="pausing") as m:
        m.expect("waiting", 60)
        skep("pause", "pausing")
        skep("resume", "pausing")
        m.exits(EXIT_PASSED, 60)


def seconds(m):
    return float(m.command("cat /proc/uptime").split()[0])


def choose(m, source):
    # Short lines: the shell breaks long ones, and their echo with them.
    m.command(f"s={SOURCES}")
    assert source in m.command("cat $s/available_clocksource").split(), f"{source} is not there"
    m.command(f"echo {source} > $s/current_clocksource")
    got = m.command("cat $s/current_clocksource").split()
    assert got == [source], f"{got} instead of {source}"


def debian(identity, detected, source):
    """Found by Linux, chosen with the TSC in turn, saved and restored: time goes on and never back."""
    snap = os.path.join(scratch(), f"{identity}.skep")
    with linux("cloud", "quiet", "-o", f"identity={identity}", name=identity) as m:
        m.expect(PROMPT)
        log = m.command("dmesg")
        assert f"Hypervisor detected: {detected}" in log, "Linux does not see it"
        assert "unchecked MSR" not in log and "WARNING" not in log, log[-2000:]
        assert m.command(f"cat {SOURCES}/current_clocksource").split() == ["tsc"], \
            "with an invariant TSC that is the best clock"
        choose(m, source)
        last = seconds(m)
        skep("save", "--suspend", identity, snap)
        m.exits(SUSPENDED, 60)
    time.sleep(3)
    for policy, gap in ("continue", 0), ("advance", 3):
        with Restored(snap, f"--time={policy}", name=identity) as m:
            m.send("\n")
            m.expect(PROMPT)
            now = seconds(m)
            assert last + gap <= now < last + gap + 20, f"--time={policy}: uptime from {last} to {now}"
            for each in source, "tsc", source:
                choose(m, each)
                begin, host = seconds(m), time.monotonic()
                m.command("sleep 2")
                ran, took = seconds(m) - begin, time.monotonic() - host
                assert begin >= now and 1.9 < ran < took + 1, f"{each}: {ran} s of {took}"
                now = begin + ran
            log = m.command("dmesg")
            bad = re.search("clocksource.*unstable|soft lockup|stall|unchecked MSR", log)
            assert not bad, f"dmesg: {bad[0]}"
            m.send("poweroff -f\n")
            m.exits(POWEROFF, 60)


def debian_kvm():
    debian("kvm", "KVM", "kvm-clock")


def debian_hyperv():
    debian("hyperv", "Microsoft Hyper-V", "hyperv_clocksource_tsc_page")


if __name__ == "__main__":
    run(own_kvmclock, own_hyperv, paused, debian_kvm, debian_hyperv)
