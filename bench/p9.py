#!/usr/bin/python3
"""A shared directory in skep and in QEMU (-virtfs, TCG): the same kernel, initramfs, mount options and
commands, one machine after the other, in turns.

    bench/p9.py [--files N] [--megabytes N] [--rounds N] [--json FILE]

The times are the guest's own.  The ratio is QEMU's time by skep's: more than 1 is faster than QEMU.
"""
import argparse
import json
import os
import re
import shutil
import statistics
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TOP, "tests/e2e"))
import lib  # noqa: E402

MODULES = ("virtio_pci", "9pnet_virtio", "9p")
MOUNT = "mkdir -p /mnt/h; mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 share /mnt/h"
TIME = re.compile(r"real\s+(\d+)m\s*([0-9.]+)s")


def cases(files, megabytes):
    """name: (what comes before, what is measured); in /mnt/h."""
    return {
        "sequential write": ("rm -f z", f"dd if=/dev/zero of=z bs=1M count={megabytes}"),
        "sequential read": ("true", "dd if=z of=/dev/null bs=1M"),
        "untar": (f"mkdir t; cd t; i=0; while [ $i -lt {files} ]; do echo $i >f$i; i=$((i+1)); "
                  "[ $((i%50)) = 0 ] && mkdir d$i && mv f* d$i; done; tar -c -f /tmp/t.tar .; cd /mnt/h; "
                  "rm -rf t u; mkdir u", "tar -x -f /tmp/t.tar -C u"),
        "find": ("true", "find u -type f"),
        "ls -lR": ("true", "ls -lR u"),
        "read all": ("true", "grep -r nothing u"),
        "rm -r": ("true", "rm -r u"),
    }


def machines(d):
    kernel, initrd = lib.kernel("generic"), lib.initrd("generic", MODULES)
    boot = ["-kernel", kernel, "-initrd", initrd, "-append", "console=ttyS0 quiet"]
    return {
        "skep": [lib.SKEP, "run", "-c", "1", "-m", "512M", "-s", "0,hostbridge", "-s", "31,lpc",
                 "-l", "com1,stdio", "-o", "control=none", "-s", f"5,virtio-9p,share={d}",
                 "--kernel", kernel, "--initrd", initrd, "--append", "console=ttyS0 quiet", "bench"],
        "qemu": ["qemu-system-x86_64", "-accel", "tcg", "-machine", "q35", "-smp", "1", "-m", "512M",
                 "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-cpu", "max",
                 "-virtfs", f"local,path={d},mount_tag=share,security_model=mapped-xattr,multidevs=remap",
                 *boot],
    }


def measure(argv, todo):
    times = {}
    with lib.Machine(argv=argv) as m:
        m.expect(lib.PROMPT, 300)
        m.command(MOUNT, 200)
        for name, (before, what) in todo.items():
            # What takes a moment is at the mercy of the host's scheduler: the best of five.
            for _ in range(5 if name.startswith("sequential") else 1):
                m.command(f"cd /mnt/h; {before}; cd ~", 900)
                out = m.command(f"cd /mnt/h; (time {what} >/dev/null) 2>&1; cd ~", 900)
                found = TIME.search(out)
                if not found:
                    m.fail(f"{name}: {out}")
                seconds = 60 * int(found.group(1)) + float(found.group(2))
                times[name] = min(seconds, times.get(name, seconds))
        m.kill()
    return times


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--files", type=int, default=10000)
    a.add_argument("--megabytes", type=int, default=256)
    a.add_argument("--rounds", type=int, default=3)
    a.add_argument("--json")
    a = a.parse_args()
    if not shutil.which("qemu-system-x86_64"):
        sys.exit("qemu-system-x86_64 is not there: apt-get install qemu-system-x86")
    todo = cases(a.files, a.megabytes)
    got = {}
    for _ in range(a.rounds):
        with tempfile.TemporaryDirectory() as d:
            for name in ("skep", "qemu"):
                os.mkdir(os.path.join(d, name))
                for case, seconds in measure(machines(os.path.join(d, name))[name], todo).items():
                    got.setdefault(case, {}).setdefault(name, []).append(seconds)
    print(f"{'':20}{'skep':>9}{'QEMU':>9}{'ratio':>8}   seconds, the best of {a.rounds}; {a.files} files, "
          f"{a.megabytes} MiB")
    rows = {}
    for case, both in got.items():
        skep, qemu = min(both["skep"]), min(both["qemu"])
        rows[case] = {"skep": both["skep"], "qemu": both["qemu"], "ratio": qemu / max(skep, 0.005),
                      "median": statistics.median(both["qemu"]) / max(statistics.median(both["skep"]), 0.005)}
        print(f"{case:20}{skep:9.2f}{qemu:9.2f}{rows[case]['ratio']:8.2f}")
    if a.json:
        with open(a.json, "w") as f:
            json.dump({"files": a.files, "megabytes": a.megabytes, "rows": rows}, f, indent=1)


if __name__ == "__main__":
    main()
