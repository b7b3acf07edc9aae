"""TCP through slirp, from the host to the guest and back, beside QEMU with its own slirp.

The host's end tells the time: from the guest's connection to the last byte, in one transfer each
way; the guest runs busybox's nc, so that its own share is the same for both machines.
"""
import os
import re
import socket
import subprocess
import tempfile
import threading
import time

from common import BENCH, BUILD, Failed, Limit, PAIRS, QEMU, SKEP, TOP, log

PARTS = ["slirp_down", "slirp_up"]
SIZE = 64 << 20
BLOCK = 1 << 16
LIMIT = 300


class Ends:
    """The host's two ports: one that gives SIZE bytes, one that takes them."""

    def __init__(self):
        self.seconds = {}
        self.down, self.up = self.serve(self.give), self.serve(self.take)

    def serve(self, handler):
        s = socket.socket()
        s.bind(("127.0.0.1", 0))
        s.listen(1)

        def run():
            while True:
                c, _ = s.accept()
                with c:
                    begin = time.monotonic()
                    name = handler(c)
                    self.seconds.setdefault(name, time.monotonic() - begin)
        threading.Thread(target=run, daemon=True).start()
        return s.getsockname()[1]

    def give(self, c):
        block = bytes(BLOCK)
        for _ in range(SIZE // BLOCK):
            c.sendall(block)
        c.shutdown(socket.SHUT_WR)
        while c.recv(BLOCK):        # until the guest has seen the end
            pass
        return "slirp_down"

    def take(self, c):
        n = 0
        while d := c.recv(BLOCK):
            n += len(d)
        return "slirp_up" if n == SIZE else f"only {n} bytes"


def machine(argv):
    """{part: MiB/s} of one run."""
    ends = Ends()
    line = f"console=ttyS0 quiet skep.test=network skep.ports={ends.down},{ends.up}"
    with tempfile.TemporaryFile() as out:
        subprocess.run([line if a is None else a for a in argv], stdin=subprocess.DEVNULL, stdout=out,
                       stderr=out, timeout=LIMIT, check=False)
        out.seek(0)
        text = out.read().decode(errors="replace")
    if sorted(ends.seconds) != PARTS or not re.search("network ended with 0", text):
        raise Failed(f"{argv[0]}: {sorted(ends.seconds)}: {text[-400:].strip()}")
    return {k: SIZE / 2**20 / v for k, v in ends.seconds.items()}


def take(table, names):
    if subprocess.run([os.path.join(TOP, "scripts/fetch-kernel"), "cloud"]).returncode:
        raise Failed("Debian's kernel could not be fetched through apt")
    kernel, initrd = os.path.join(BUILD, "guest/cloud/vmlinuz"), os.path.join(BENCH, "network.gz")
    os.makedirs(BENCH, exist_ok=True)
    subprocess.run([os.path.join(TOP, "scripts/mkinitramfs"), "-m", "virtio_pci virtio_net", initrd,
                    "cloud", os.path.join(TOP, "bench/tree")], check=True)
    common = ["-kernel", kernel, "-initrd", initrd, "-append", None]
    ours = [SKEP, "run", "-c", "1", "-m", "512M", "-l", "com1,stdio", "-o", "backend=soft", "-o",
            "control=none", "-s", "2,virtio-net,slirp",
            *(a and a.replace("-", "--", 1) if i % 2 == 0 else a for i, a in enumerate(common)), "bench"]
    theirs = [QEMU, "-accel", "tcg", "-M", "q35", "-m", "512M", "-nodefaults", "-display", "none", "-serial",
              "stdio", "-no-reboot", "-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n", *common]
    found = {"skep": [], "QEMU": []}
    for n in range(PAIRS):
        both = [("skep", ours)] + ([("QEMU", theirs)] if QEMU else [])
        for name, argv in both[::-1] if n % 2 else both:
            found[name].append(machine(argv))
            log(f"pair {n + 1}: {name}: " +
                ", ".join(f"{k} {v:.1f} MiB/s" for k, v in sorted(found[name][-1].items())))
    for part in PARTS:
        if part in names:
            table.add(part, "MiB/s", [f[part] for f in found["skep"]], [f[part] for f in found["QEMU"]],
                      "higher", limit=Limit("ratio", least=1))
