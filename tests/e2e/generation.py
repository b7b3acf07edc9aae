"""A restored guest is told: VM Generation ID and VMClock; and the RTC's alarm as Linux uses it."""
import os
import re
import struct
import subprocess
import time

from lib import PROMPT, SKEP, SUSPENDED, Machine, command, linux, run, scratch

AREA, END, GUID_OFFSET = 0xe0000, 0x100000, 40


def path(name):
    return os.path.join(scratch(), name)


def physical(file):
    """The first MiB of a plain snapshot's RAM."""
    with open(file, "rb") as f:
        head = f.read(64)
        phoff, = struct.unpack_from("<Q", head, 32)
        size, n = struct.unpack_from("<HH", head, 54)
        f.seek(phoff)
        table = f.read(size * n)
        for i in range(n):
            kind, = struct.unpack_from("<I", table, i * size)
            offset, _, gpa, stored = struct.unpack_from("<4Q", table, i * size + 8)
            if kind == 1 and gpa == 0:
                f.seek(offset)
                return f.read(min(stored, END)).ljust(END, b"\0")
    raise AssertionError(f"{file} holds no RAM at 0")


def clock_page(ram):
    pages = [a for a in range(AREA, END, 4096) if ram[a:a + 4] == b"VCLK"]
    assert len(pages) == 1, f"VMClock's page: {pages}"
    p = ram[pages[0]:pages[0] + 112]
    assert struct.unpack_from("<IH", p, 4) == (4096, 1), "size and version"
    names = ("seq", "marker", "flags")
    c = dict(zip(names, struct.unpack_from("<IQQ", p, 12)))
    c.update(counter=p[10], type=p[11], status=p[0x22], generation=struct.unpack_from("<Q", p, 0x68)[0],
             bytes=p, at=pages[0])
    assert c["seq"] % 2 == 0, "a change is never seen half done"
    return c


def guid(ram):
    """Its page lies below VMClock's, and holds nothing else."""
    p = ram[clock_page(ram)["at"] - 4096:clock_page(ram)["at"]]
    assert not any(p[:GUID_OFFSET]) and not any(p[GUID_OFFSET + 16:]), "the page holds more than the id"
    assert any(p[GUID_OFFSET:GUID_OFFSET + 16])
    return p[GUID_OFFSET:GUID_OFFSET + 16].hex()


def start(flavour="generic", *args):
    m = linux(flavour, "", *args, ram="512M", name="gen")
    m.expect(PROMPT)
    m.command("dmesg -n 1")
    return m


def save(m, file, *flags):
    code, out = command("save", *flags, "gen", file)
    assert code == 0, out
    return physical(file)


def reseeds(m):
    return int(m.command("dmesg | grep -c 'crng reseeded due to virtual machine fork'").split()[0])


def again(file, *flags):
    m = Machine(argv=[SKEP, "restore", *flags, file])
    m.send("\n")
    m.expect(PROMPT)
    return m


def linux_reseeds_on_a_restore():
    """Debian's generic kernel has a driver: it hears of every restore, and of no exact one."""
    with start() as m:
        assert "SKEP0001" in m.command("cat /sys/bus/acpi/devices/*/hid")
        assert reseeds(m) == 0
        first = save(m, path("a"))
        assert guid(save(m, path("b"), "--suspend")) == guid(first), "a checkpoint is no restore"
        m.exits(SUSPENDED)
    a, b = clock_page(first), clock_page(physical(path("b")))
    assert a["marker"] != b["marker"] and a["generation"] == b["generation"], \
        "but the guest's time stood meanwhile"
    seen, clocks = [guid(first)], []
    for flags in ([], [], ["--exact"]):
        with again(path("b"), *flags) as m:
            assert reseeds(m) == (0 if flags else 1), f"{flags}: {m.command('dmesg | tail')}"
            ram = save(m, path("c"))
            seen.append(guid(ram))
            clocks.append(clock_page(ram))
            m.kill()
    assert len(set(seen)) == 3 and seen[3] == seen[0], seen
    assert len({c["generation"] for c in clocks + [b]}) == 3
    assert clocks[2]["bytes"] == b["bytes"], "--exact changes nothing"
    assert len({c["marker"] for c in clocks[:2] + [b]}) == 3
    # A restore of a restored machine.
    with again(path("b")) as m:
        save(m, path("d"), "--suspend")
        m.exits(SUSPENDED)
    with again(path("d")) as m:
        assert reseeds(m) == 2
        m.kill()


def vmclock_tells_utc():
    """The page's pair of TSC and UTC, by the page's own formula, is what the host's clock says."""
    with start("cloud") as m:
        before = time.time()
        c = clock_page(save(m, path("v"), "--suspend"))["bytes"]
        m.exits(SUSPENDED)
    with again(path("v")) as m:
        after = clock_page(save(m, path("w")))["bytes"]
        m.kill()
    for page, at in (c, before), (after, time.time()):
        shift = page[0x27]
        period, = struct.unpack_from("<Q", page, 0x30)
        sec, frac = struct.unpack_from("<QQ", page, 0x48)
        assert page[0x0a] == 1, "the counter is the TSC"
        assert abs(period / 2**(64 + shift) * 1e9 - 1) < 1e-9, "1 GHz"
        assert at - 60 < sec + frac / 2**64 < at + 60, (sec, at)


def rtc_alarm_by_acpi():
    """Linux, which gave the RTC's wire to the HPET, takes the alarm from ACPI's RTC event."""
    with start("cloud") as m:
        count = "cat /sys/firmware/acpi/interrupts/ff_rt_clk"
        assert "alrm_time" in m.command("cat /proc/driver/rtc")
        assert m.command(count).split()[0] == "0"
        m.command("echo +3 >/sys/class/rtc/rtc0/wakealarm; cat /sys/class/rtc/rtc0/wakealarm")
        save(m, path("r"), "--suspend")
        m.exits(SUSPENDED)
    with again(path("r")) as m:
        m.command("sleep 5")
        assert m.command(count).split()[0] == "1", "the alarm rang once, after the restore"
        # It is over: there is none to be read any more.
        assert m.command("cat /sys/class/rtc/rtc0/wakealarm").strip() == ""
        m.kill()


def clones_differ():
    """Also those of a machine whose entropy is seeded."""
    for seed in [], ["-o", "seed=7"]:
        with start("cloud", *seed) as m:
            first = save(m, path("one"), "--suspend")
            m.exits(SUSPENDED)
        seen = {guid(first)}
        p = subprocess.Popen([SKEP, "clone", "-n", "3", "-o", f"lpc.com1.path={path('con')}%(clone)",
                              path("one"), "twin"], stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            for n in clone_names():
                out = path(n)
                code, said = command("save", "--suspend", n, out)
                assert code == 0, said
                seen.add(guid(physical(out)))
        finally:
            p.terminate()
            p.wait(20)
        assert len(seen) == 4, f"{seed}: {seen}"


def clone_names():
    end = time.monotonic() + 30
    while time.monotonic() < end:
        names = set(re.findall(r'"name": *"(twin[^"]*)"', command("list", "--json")[1]))
        if len(names) == 3:
            return sorted(names)
        time.sleep(0.2)
    raise AssertionError("three clones do not run")


run(linux_reseeds_on_a_restore, vmclock_tells_utc, rtc_alarm_by_acpi, clones_differ)
