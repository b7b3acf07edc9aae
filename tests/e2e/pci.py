"""PCI and virtio as Debian's kernel sees them: the bus, every way to interrupt, reset, save and restore.

Slots 3 and 11 have one interrupt line in common (PIRQ D), slot 4 another.
"""
import os
import re
import time

from lib import LONG, PROMPT, command, guest_test, linux, run, scratch

MODULES = ("virtio_pci", "virtio_rng")
DEVICES = ("-s", "3,virtio-rnd", "-s", "4,virtio-rnd", "-s", "11,virtio-rnd")


def look(append, cpus=1):
    out = guest_test("cloud", "pci", *DEVICES, "-c", str(cpus), append=f"quiet {append}".strip(),
                     modules=MODULES)
    irq = [line.split()[1:] for line in out.splitlines() if line.startswith("IRQ ")]
    for word in "READ", "AGAIN":
        got = re.findall(rf"^{word} (\S+) (\d+)$", out, re.M)
        assert len(got) == 3 and all(int(n) == (4096 if word == "READ" else 64) for _, n in got), \
            f"{append}: {word}: {got}\n{out}"
    assert "RESET 0000:00:03.0" in out, out
    return out, irq


def bus():
    out, irq = look("")
    for device in ("0000:00:00.0 0x8086 0x29c0", "0000:00:1f.0 0x8086 0x2918", "0000:00:03.0 0x1af4 0x1044",
                   "0000:00:04.0 0x1af4 0x1044", "0000:00:0b.0 0x1af4 0x1044"):
        assert f"PCI {device}" in out, f"{device}\n{out}"
    # ECAM: 4 KiB of configuration space of who is PCI Express; who says so can be reset.
    assert out.count("config=4096") == 4, out
    assert len(re.findall(r"0x1044 \S+ config=4096 reset=flr", out)) == 3, out
    # Two BARs each, none over another, in the windows of _CRS.
    bars = [(int(a, 16), int(b, 16)) for a, b in re.findall(r"^BAR \S+ \d (\S+) (\S+)", out, re.M)]
    assert len(bars) == 6, out
    for i, (first, last) in enumerate(sorted(bars)):
        assert 0xc0000000 <= first <= last <= 0xfebfffff or 1 << 36 <= first < 1 << 37, out
        assert i == 0 or sorted(bars)[i - 1][1] < first, out
    assert out.count("VIRTIO") == 3 and out.count("packed=1 event=1") == 3, out
    # MSI-X: a vector for the configuration and one for the queue, of each device.
    assert len(irq) == 6 and all("PCI-MSI" in " ".join(i) for i in irq), irq
    assert "LOG" not in out, out


def lines(append, controller, cpus=1):
    out, irq = look(append, cpus)
    assert irq and all(controller in " ".join(i) for i in irq), f"{append}: {irq}\n{out}"
    by_line = {i[0]: " ".join(i) for i in irq}
    shared = [text for text in by_line.values() if text.count("virtio") == 2]
    assert len(by_line) == 2 and len(shared) == 1, f"{append}: {by_line}"


def ioapic_lines():
    lines("pci=nomsi", "IO-APIC")


def pic_lines():
    lines("pci=nomsi noapic", "XT-PIC")


def messages_without_ioapic():
    _, irq = look("noapic")
    assert len(irq) == 6 and all("PCI-MSI" in " ".join(i) for i in irq), irq


def two_processors():
    lines("pci=nomsi", "IO-APIC", cpus=2)


READING = "while :; do n=$(dd if=/dev/hwrng bs=64 count=20 2>/dev/null | wc -c); echo R$((n + 0))R; done\n"


def carry(append):
    """Saved while it is read, restored, and it is read on; three times."""
    name = f"pci{os.getpid()}"
    path = os.path.join(scratch(), "pci.skep")
    m = linux("cloud", append + " quiet", *DEVICES, modules=MODULES, name=name)
    m.expect(PROMPT, 200)
    m.send(READING)
    for _ in range(3):
        for _ in range(3):
            m.expect("R1280R", 60)
        code, out = command("save", "--suspend", name, path)
        assert code == 0, out
        m.exits(5, 60)
        m.__exit__()
        m = type(m)(argv=[m.argv[0], "restore", path])
    for _ in range(3):
        m.expect("R1280R", 60)
    m.send("\x03")
    m.expect(PROMPT, 30)
    m.send("grep -c virtio /proc/interrupts; dmesg | tail -n 3; poweroff -f\n")
    m.exits(1, 60)
    m.__exit__()
    os.unlink(path)


def saved_with_messages():
    carry("")


def saved_with_lines():
    carry("pci=nomsi")


def saved_with_the_8259():
    carry("pci=nomsi noapic")


def saved_size(*device):
    """Bytes of RAM in a snapshot of a guest that has used much memory and given it back."""
    name, path = f"balloon{os.getpid()}", os.path.join(scratch(), "balloon.skep")
    with linux("cloud", "quiet", *device, modules=("virtio_pci", "virtio_balloon"), name=name) as m:
        m.expect(PROMPT, 200)
        m.send("dd if=/dev/urandom of=/tmp/m bs=1M count=1 2>/dev/null; i=0; while [ $i -lt 200 ]; do "
               "cat /tmp/m; i=$((i + 1)); done >/tmp/f; rm /tmp/f; echo DO''NE\n")
        m.expect("DONE", 120)
        end = time.monotonic() + 60
        while True:
            code, out = command("save", name, path)
            assert code == 0, out
            ram = float(re.search(r": ([0-9.]+) MiB of RAM", out)[1])
            os.unlink(path)
            if ram < 120 or not device or time.monotonic() > end:
                break
            time.sleep(1)
        m.send("md5sum /bin/busybox; poweroff -f\n")
        m.exits(1, 60)
    return ram


def balloon():
    without, with_it = saved_size(), saved_size("-s", "5,virtio-balloon")
    print(f"# RAM saved: {without:.0f} MiB, with free page reporting {with_it:.0f} MiB", flush=True)
    assert without > 200 and with_it < 120, (without, with_it)


run(bus, ioapic_lines, pic_lines, saved_with_lines, balloon,
    *((messages_without_ioapic, two_processors, saved_with_messages, saved_with_the_8259) if LONG else ()))
