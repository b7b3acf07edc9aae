"""Disks: what a guest gets of virtio-blk, each measured by bench/guest/disk.c in the guest, by its clock.

  disk_seq_read, disk_seq_write		MB/s in requests of 512 KiB, one at a time; the write with its flush
  disk_rand_read, disk_rand_write	requests of 4 KiB a second, four at a time

The peer is QEMU with the same image, cache=writeback and aio=threads, and one request queue.  The image's bytes are
in the host's page cache in both.
"""
import os
import re
import subprocess

from common import BENCH, BUILD, Failed, Limit, PAIRS, QEMU, SKEP, TOP, log

PARTS = ["disk_seq_read", "disk_seq_write", "disk_rand_read", "disk_rand_write"]
PATIENCE = 300


def _prepare():
    tree = os.path.join(BENCH, "disk-tree")
    os.makedirs(os.path.join(tree, "bin"), exist_ok=True)
    os.makedirs(os.path.join(tree, "tests"), exist_ok=True)
    subprocess.run(["gcc", "-O2", "-static", "-march=x86-64", "-Wall", "-Wextra", "-Werror",
                    os.path.join(TOP, "bench/guest/disk.c"), "-o", os.path.join(tree, "bin/disk")], check=True)
    with open(os.path.join(tree, "tests/disk"), "w") as f:
        f.write("/bin/disk /dev/vda\n")
    initrd = os.path.join(BENCH, "disk.gz")
    if subprocess.run([os.path.join(TOP, "scripts/fetch-kernel"), "cloud"]).returncode:
        raise Failed("Debian's kernel could not be fetched through apt")
    subprocess.run([os.path.join(TOP, "scripts/mkinitramfs"), "-m", "virtio_pci virtio_blk", initrd, "cloud",
                    tree], check=True)
    image = os.path.join(BENCH, "disk.img")
    with open(image, "wb") as f:
        f.write(bytes(160 << 20))
    return os.path.join(BUILD, "guest/cloud/vmlinuz"), initrd, image


def _argv(peer, kernel, initrd, image):
    append = "console=ttyS0 quiet skep.test=disk"
    if peer:
        return [QEMU, "-accel", "tcg", "-M", "q35", "-cpu", "max", "-m", "512M", "-nographic", "-no-reboot",
                "-kernel", kernel, "-initrd", initrd, "-append", append,
                "-drive", f"file={image},format=raw,if=none,id=d,cache=writeback",
                "-device", "virtio-blk-pci,drive=d,num-queues=1"]
    return [SKEP, "run", "-c", "1", "-m", "512M", "-s", f"4,virtio-blk,{image}", "-l", "com1,stdio",
            "-o", "control=none", "--kernel", kernel, "--initrd", initrd, "--append", append, "bench"]


def _measure(peer, *where):
    out = subprocess.run(_argv(peer, *where), stdin=subprocess.DEVNULL, capture_output=True,
                         timeout=PATIENCE).stdout.decode(errors="replace")
    found = {"disk_" + k: float(v) for k, v in re.findall(r"DISK (\w+) (\d+)", out)}
    if len(found) != len(PARTS):
        raise Failed(f"{'QEMU' if peer else 'skep'} did not come to the end: {out[-400:]}")
    return found


def take(table, wanted):
    """Adds the rows among those wanted to the table."""
    names = [n for n in PARTS if n in wanted]
    if not names:
        return
    where = _prepare()
    ours, theirs = [], []
    for i in range(PAIRS):
        log(f"disk: pair {i + 1} of {PAIRS}")
        ours.append(_measure(False, *where))
        if QEMU:
            theirs.append(_measure(True, *where))
    for n in names:
        scale, unit = (1e6, "MB/s") if "seq" in n else (1, "requests/s")
        table.add(n, unit, [r[n] / scale for r in ours], [r[n] / scale for r in theirs], better="higher",
                  digits=1, limit=Limit("ratio", least=1))
