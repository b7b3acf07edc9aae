"""Disks: ext4 on virtio-blk in Debian, read-only and otherwise; crashes of the machine and of an NBD server;
saves and restores of memory and disk, together and not; clones; exactness with a disk.

tests/e2e/guests/scribe.c runs in the guest and knows, in memory only, what it wrote to a disk.
"""
import os
import shutil
import signal
import subprocess
import time

from lib import (ERROR, HERE, LONG, POWEROFF, PROMPT, SKEP, SUSPENDED, Machine, Skip, command, linux, run,
                 scratch)

MODULES = ("virtio_pci", "virtio_blk")     # ext4 is built into the cloud kernel
MiB = 1 << 20


def path(name):
    return os.path.join(scratch(), name)


def need(*programs):
    for p in programs:
        if not shutil.which(p, path="/usr/sbin:/sbin:" + os.environ["PATH"]):
            raise Skip(f"{p} is not here")


def tool(*argv, **kw):
    env = dict(os.environ, PATH="/usr/sbin:/sbin:" + os.environ["PATH"])
    return subprocess.run(argv, capture_output=True, text=True, env=env, **kw)


def raw(name, size=64 * MiB):
    with open(path(name), "wb") as f:
        f.truncate(size)
    return path(name)


def ext4(name, size=128 * MiB):
    """A file system with scribe and a few files on it."""
    need("mke2fs", "gcc")
    tree = path("tree")
    if not os.path.exists(tree):
        os.mkdir(tree)
        subprocess.run(["gcc", "-O2", "-static", "-o", os.path.join(tree, "scribe"),
                        os.path.join(HERE, "guests/scribe.c")], check=True)
        with open(os.path.join(tree, "hello"), "w") as f:
            f.write("Hello from the host.\n")
    p = tool("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-d", tree, raw(name, size))
    assert p.returncode == 0, p.stderr
    return path(name)


def fsck(name, repair=False):
    p = tool("e2fsck", "-f", "-p" if repair else "-n", path(name))
    assert p.returncode <= (1 if repair else 0), f"e2fsck {name}: {p.stdout}{p.stderr}"


def debian(*args, append="quiet", **kw):
    m = linux("cloud", append, *args, modules=MODULES, **kw)
    m.expect(PROMPT)
    return m


def skep(*argv, timeout=60):
    code, out = command(*argv, timeout=timeout)
    assert code == 0, f"skep {' '.join(argv)} ended with {code}: {out[-600:]}"
    return out


def refused(*argv, why):
    code, out = command(*argv)
    assert code == ERROR and why in out, f"skep {' '.join(argv)}: {code}, {out[-600:]}"


def writes(m, more=200, timeout=60):
    """scribe goes on, by that many requests at least."""
    end = time.monotonic() + timeout
    first = None
    while time.monotonic() < end:
        m.expect("scribe: ", timeout)
        word = m.expect("\n", 10).strip()
        if not word.isdigit():
            m.fail(f"scribe: {word}")
        first = int(word) if first is None else first
        if int(word) >= first + more:
            return
    m.fail(f"scribe does not go on: {word}")


def start_scribe(m, device="/dev/vdb", blocks=4096):
    m.command("mkdir -p /m; mount -t ext4 -o ro,noload /dev/vda /m")
    m.send(f"/m/scribe {device} {blocks}\n")
    writes(m, 50)


def restore(*args, **kw):
    return Machine(argv=[SKEP, "restore", *args], **kw)


# ---- One machine ---------------------------------------------------------------


def ext4_works():
    for how in ("aio=io_uring,queues=2", "aio=threads,direct", "nocache,sectorsize=4096",
                "overlay=" + path("o.ovl")):
        ext4("a.img")
        with debian("-s", f"4,virtio-blk,{path('a.img')},{how}") as m:
            assert "mounted" in m.command("mount -t ext4 /dev/vda /mnt 2>&1 || mkdir -p /mnt && "
                                          "mount -t ext4 /dev/vda /mnt; echo mounted")
            assert "Hello from the host" in m.command("cat /mnt/hello"), how
            m.command("dd if=/dev/urandom of=/mnt/r bs=64k count=100 2>/dev/null; md5sum </mnt/r >/mnt/sum")
            m.command("cp -r /bin /mnt/; rm -r /mnt/bin; fstrim /mnt")
            m.command("echo 3 >/proc/sys/vm/drop_caches")
            assert m.command("md5sum </mnt/r").strip() == m.command("cat /mnt/sum").strip(), how
            assert "skep-0.4.0" in m.command("cat /sys/block/vda/serial"), how
            m.command("umount /mnt; sync")
            m.send("poweroff\n")
            m.exits(POWEROFF)
        if not how.startswith("overlay"):
            fsck("a.img")


def read_only():
    ext4("ro.img")
    before = open(path("ro.img"), "rb").read()
    with debian("-s", f"4,virtio-blk,{path('ro.img')},ro,ser=abc,sectorsize=512/4096") as m:
        assert m.command("cat /sys/block/vda/ro").strip() == "1"
        assert m.command("cat /sys/block/vda/serial").strip() == "abc"
        assert m.command("cat /sys/block/vda/queue/physical_block_size").strip() == "4096"
        # Two machines may read what none writes, and nobody writes what one reads.
        refused("run", "-m", "16M", "-s", f"4,virtio-blk,{path('ro.img')}", "--kernel", "/nonexistent", "x",
                why="in use by process")
        m.command("mkdir /m; mount -o ro,noload -t ext4 /dev/vda /m")
        assert "Hello" in m.command("cat /m/hello")
    assert open(path("ro.img"), "rb").read() == before


def busy():
    """A disk that a machine writes to is no other's, and the sentence says whose it is."""
    raw("busy.img")
    with debian("-s", f"4,virtio-blk,{path('busy.img')}") as m:
        code, out = command("run", "-m", "16M", "-s", f"4,virtio-blk,{path('busy.img')}", "--kernel", "/x", "x")
        assert code == ERROR and f"process {m.p.pid} (" in out, out
    code, out = command("run", "-m", "16M", "-s", f"4,virtio-blk,{path('no.img')}", "--kernel", "/x", "x")
    assert code == ERROR and "truncate" in out, out
    code, out = command("run", "-m", "16M", "-s", "4,virtio-blk", "--kernel", "/x", "x")
    assert code == ERROR and "path" in out, out


def resize():
    """A disk that grows while the guest runs, by the file or by us."""
    raw("r.img", 16 * MiB)
    raw("r2.img", 16 * MiB)
    with debian("-s", f"4,virtio-blk,{path('r.img')}",
                "-s", f"5,virtio-blk,{path('r2.img')},overlay={path('r2.ovl')}") as m:
        os.truncate(path("r.img"), 24 * MiB)
        skep("ctl", "e2e", "disk-resize", '{"device": "pci.0.4.0"}')
        skep("ctl", "e2e", "disk-resize", f'{{"device": "pci.0.5.0", "bytes": {32 * MiB}}}')
        for n, size in (("a", 24), ("b", 32)):
            for _ in range(50):
                got = m.command(f"cat /sys/block/vd{n}/size").strip()
                if got == str(size * 2048):
                    break
                time.sleep(0.1)
            assert got == str(size * 2048), f"vd{n}: {got}"
            assert "wrong" not in m.command(f"dd if=/dev/urandom of=/tmp/r bs=1M count=1 2>/dev/null; dd if=/tmp/r "
                                            f"of=/dev/vd{n} bs=1M seek={size - 1} conv=fsync 2>/dev/null && dd "
                                            f"if=/dev/vd{n} bs=1M skip={size - 1} 2>/dev/null | cmp - /tmp/r || "
                                            f"echo wr''ong")
        code, out = command("ctl", "e2e", "disk-resize", f'{{"device": "pci.0.4.0", "bytes": {MiB}}}')
        assert code == ERROR and "only grow" in out, out


def kill9():
    """What the guest has synced survives, and the file system with it."""
    ext4("k.img")
    for n in range(3):
        with debian("-s", f"4,virtio-blk,{path('k.img')}", append="quiet") as m:
            m.command("mkdir /m; mount -t ext4 /dev/vda /m")
            m.send(f"i=0; while :; do i=$((i+1)); echo $i >/m/n-{n}; sync; echo synced $i; "
                   "cp /bin/busybox /m/b$i; rm -f /m/b$((i-5)); done\n")
            m.expect("synced 20\r")
            time.sleep(0.3 * n)
            m.kill()
            while m._read(1):
                pass
            last = int(m.text.rsplit(b"synced ", 1)[1].split(b"\r")[0])
        fsck("k.img", repair=True)
        p = tool("debugfs", "-R", f"cat n-{n}", path("k.img"))
        assert int(p.stdout or 0) >= last, f"{p.stdout!r} on the disk, {last} was synced"
        fsck("k.img")


# ---- Memory and disk -------------------------------------------------------------


def suspend():
    """A disk as it is: it goes with its snapshot as long as nobody writes to it."""
    ext4("s.img")
    raw("s2.img", 16 * MiB)
    snap = path("s.skep")
    with debian("-s", f"4,virtio-blk,{path('s.img')},ro", "-s", f"5,virtio-blk,{path('s2.img')}") as m:
        start_scribe(m)
        writes(m)
        skep("save", "--suspend", "e2e", snap)
        m.exits(SUSPENDED)
    skep("verify", snap)
    with restore(snap) as m:
        writes(m)
        m.kill()
    refused("restore", snap, why="--disks=any")
    refused("clone", snap, why="overlay")


def _together(live):
    """Checkpoints with --disks: each restore goes back to memory and disk of one moment."""
    ext4("t.img")
    raw("t2.img", 16 * MiB)
    one, two = path("t1.skep"), path("t2.skep")
    mode = ["--disks"] + (["--live"] if live else [])
    for f in ("t2.ovl",):
        if os.path.exists(path(f)):
            os.unlink(path(f))
    with debian("-s", f"4,virtio-blk,{path('t.img')},ro",
                "-s", f"5,virtio-blk,{path('t2.img')},overlay={path('t2.ovl')}") as m:
        start_scribe(m)
        skep("save", *mode, "e2e", one)
        writes(m)
        skep("save", *mode, "e2e", two)
        writes(m)
        skep("save", *mode, "e2e", two)
        writes(m)
        m.kill()
    for snap in (two, one, one, two):
        skep("verify", snap)
        with restore(snap) as m:
            writes(m)
            m.kill()
    # Back and forth; and the disk below was never written to.
    with restore(one) as m:
        writes(m)
        skep("save", *mode, "e2e", two)
        writes(m)
        m.kill()
    with restore(two) as m:
        writes(m)
        m.kill()
    assert not any(open(path("t2.img"), "rb").read())


def together():
    _together(live=False)


def together_live():
    _together(live=True)


def clones():
    ext4("c.img")
    raw("c2.img", 16 * MiB)
    snap = path("c.skep")
    with debian("-s", f"4,virtio-blk,{path('c.img')},ro",
                "-s", f"5,virtio-blk,{path('c2.img')},overlay={path('c2.ovl')}") as m:
        start_scribe(m)
        skep("save", "--disks", "e2e", snap)
        writes(m)
        refused("clone", "-n", "2", "-o", "lpc.com1.path=null", snap, why="overlay=")
        out = "lpc.com1.path=" + path("%(name).log")
        p = subprocess.Popen([SKEP, "clone", "-n", "2", "-o", out,
                              "-o", f"pci.0.5.0.overlay={path('%(name).ovl')}", snap],
                             stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        end = time.monotonic() + 60
        logs = [path(f"e2e-{i}.log") for i in (1, 2)]
        while time.monotonic() < end:
            texts = [open(f).read() if os.path.exists(f) else "" for f in logs]
            assert not any("WRONG" in t for t in texts), texts
            if all(t.count("scribe: ") > 5 for t in texts):
                break
            assert p.poll() is None, p.stderr.read()
            time.sleep(0.2)
        else:
            assert False, f"the clones do not go on: {texts}"
        writes(m)       # and the first one all the while
        p.send_signal(signal.SIGTERM)
        p.send_signal(signal.SIGTERM)
        for i in (1, 2):
            command("stop", "--force", f"e2e-{i}")
        p.wait(30)
        m.kill()
    # Their disks are theirs: each is there already.
    code, out = command("clone", "-n", "1", "-o", "lpc.com1.path=null",
                        "-o", f"pci.0.5.0.overlay={path('e2e-1.ovl')}", snap)
    assert "there already" in out, out


def nbd():
    """qcow2 through qemu-nbd, which dies and comes back under a guest that writes."""
    need("qemu-nbd", "qemu-img")
    ext4("n.img")
    image, socket = path("n.qcow2"), path("nbd.sock")
    assert tool("qemu-img", "create", "-q", "-f", "qcow2", image, "16M").returncode == 0

    def serve():
        if os.path.exists(socket):
            os.unlink(socket)
        p = subprocess.Popen(["qemu-nbd", "-t", "-f", "qcow2", "-k", socket, image])
        while not os.path.exists(socket):
            time.sleep(0.02)
        return p

    server = serve()
    try:
        with debian("-s", f"4,virtio-blk,{path('n.img')},ro",
                    "-s", f"5,virtio-blk,nbd+unix:///?socket={socket}") as m:
            start_scribe(m)
            for _ in range(5):
                server.kill()
                server.wait()
                time.sleep(0.5)
                server = serve()
                writes(m)
            # It stands still: the machine can be paused all the same, soon.
            server.send_signal(signal.SIGSTOP)
            time.sleep(0.3)
            begin = time.monotonic()
            skep("pause", "e2e")
            took = time.monotonic() - begin
            assert took < 10, f"a pause waited {took:.1f} s for the server"
            skep("resume", "e2e")
            time.sleep(0.2)
            server.send_signal(signal.SIGCONT)
            writes(m)
            skep("save", "--suspend", "e2e", path("n.skep"))
            m.exits(SUSPENDED)
        server.kill()
        server.wait()
        server = serve()
        with restore(path("n.skep")) as m:
            writes(m)
            m.kill()
    finally:
        server.kill()
        server.wait()


def exact():
    """clock.mode=virtual: saved and restored on the way, the machine ends in the same state."""
    ext4("e.img")
    virtual = ("-o", "clock.mode=virtual", "-o", "control=none")
    disk = lambda n: ("-s", f"4,virtio-blk,{path('e.img')},overlay={path(n)}")
    end = 2500000000
    append = "quiet skep.test=disk"

    def state(argv, name):
        m = Machine(argv=argv + ["--dump-state", path(name)])
        with m:
            m.wait(120)
            assert os.path.exists(path(name)), m.stderr()
        with open(path(name)) as f:
            return f.read()

    with linux("cloud", append, *virtual, *disk("e0.ovl"), "-o", f"clock.limit={end}", "--dump-state",
               path("e0.txt"), modules=MODULES) as m:
        m.wait(200)
        assert b"disk: written" in m.text, m.text[-500:]
    with open(path("e0.txt")) as f:
        whole = f.read()
    points = [end * n // 20 for n in (range(9, 20) if LONG else (14, 17))]
    for n, at in enumerate(points):
        with linux("cloud", append, *virtual, *disk(f"e{n + 1}.ovl"), "-o", f"clock.limit={at + 1}",
                   "--save-at", f"{at}:{path('e.skep')}", modules=MODULES) as m:
            m.wait(200)
        again = state([SKEP, "restore", "--exact", "-o", f"clock.limit={end}", path("e.skep")], "e1.txt")
        assert again == whole, f"saved at {at} and restored, the machine ends in another state"


run(ext4_works, read_only, busy, resize, kill9, suspend, together, together_live, clones, nbd, exact)
