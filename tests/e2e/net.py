"""Network, console ports and vsock with Debian's own drivers, over checkpoints and restores."""
import contextlib
import hashlib
import os
import re
import socket
import subprocess
import threading
import time

from lib import (HERE, PROMPT, SKEP, SUSPENDED, Machine, Skip, command, initrd, kernel, linux, run,
                 scratch)

MODULES = ("virtio_pci", "virtio_net", "virtio_console", "vmw_vsock_virtio_transport")
BLOCK = 1 << 16
DATA = b"".join(hashlib.sha512(bytes([i % 256, i // 256])).digest() * 1024 for i in range(128))   # 8 MiB


def path(name):
    return os.path.join(scratch(), name)


def skep(*argv, timeout=60):
    code, out = command(*argv, timeout=timeout)
    assert code == 0, f"skep {' '.join(argv)} ended with {code}: {out[-600:]}"
    return out


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """Each connection on a thread: handler(socket).  The guest finds it at 10.0.2.2."""

    def __init__(self, handler, address=None):
        self.errors = []
        self.s = socket.socket(socket.AF_UNIX if address else socket.AF_INET)
        self.s.bind(address or ("127.0.0.1", 0))
        self.s.listen(8)
        self.port = None if address else self.s.getsockname()[1]
        self.handler = handler
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self.one, args=self.s.accept()[:1], daemon=True).start()

    def one(self, c):
        try:
            self.handler(c)
        except OSError as e:
            self.errors.append(str(e))
        finally:
            c.close()


def send_data(c):
    c.sendall(DATA)
    c.shutdown(socket.SHUT_WR)
    while c.recv(BLOCK):
        pass


def send_slowly(c):
    """8 MiB in a few seconds: long enough for things to happen meanwhile."""
    for at in range(0, len(DATA), len(DATA) // 64):
        c.sendall(DATA[at:at + len(DATA) // 64])
        time.sleep(0.05)
    c.shutdown(socket.SHUT_WR)
    while c.recv(BLOCK):
        pass


def receive(c):
    got = bytearray()
    while d := c.recv(BLOCK):
        got += d
    return bytes(got)


def boot(*args, name="net", dhcp=True, append="quiet", **kw):
    m = linux("cloud", append, *args, modules=MODULES, name=name, **kw)
    m.expect(PROMPT)
    if dhcp:
        m.command("ifconfig eth0 up")
        out = m.command("udhcpc -i eth0 -n -q -s /tests/lease")
        assert "lease 10.0.2.15 by 10.0.2.2" in out, out
    return m


def ping(m, address="10.0.2.2"):
    out = m.command(f"ping -c 3 -W 5 {address}")
    if "3 packets received" not in out:
        m.fail(f"ping: {out}")


def digest(data):
    return hashlib.sha256(data).hexdigest()


def restored(snapshot, *args):
    return Machine(argv=[SKEP, "restore", *args, snapshot])


def off(m):
    m.send("poweroff -f\n")
    m.exits(1, 60)


# ---- slirp ---------------------------------------------------------------------

def slirp():
    """DHCP, ping, TCP both ways, and a port of the host's that leads into the guest."""
    port, up = free_port(), []
    server, sink = Server(send_data), Server(lambda c: up.append(receive(c)))
    with boot("-s", f"2,virtio-net,slirp,hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:8080") as m:
        ping(m)
        out = m.command(f"nc 10.0.2.2 {server.port} </dev/null | sha256sum")
        assert digest(DATA) in out, out
        # In large segments, as the guest takes them: 5746 packets of 1460 bytes otherwise.
        packets = int(m.command("cat /sys/class/net/eth0/statistics/rx_packets").split()[0])
        assert packets < 4000, f"{packets} packets for {len(DATA)} bytes"
        m.command(f"seq 1 300000 | nc 10.0.2.2 {sink.port}")
        want = "".join(f"{i}\n" for i in range(1, 300001)).encode()
        end = time.monotonic() + 20
        while not up and time.monotonic() < end:
            time.sleep(0.05)
        assert up and up[0] == want, f"{len(up[0]) if up else 0} bytes came, of {len(want)}"
        m.send("echo hello from inside | nc -l -p 8080\n")
        m.expect("\n")
        time.sleep(1)
        with socket.create_connection(("127.0.0.1", port), 10) as c:
            c.sendall(b"hello from outside\n")
            c.shutdown(socket.SHUT_WR)
            c.settimeout(20)
            assert receive(c) == b"hello from inside\n"
        assert "hello from outside" in m.expect(PROMPT)
        # What the guest asks of the device (5.1.6.5), and what it thinks of it.
        m.command("ip link set eth0 promisc on")
        m.command("ip link set eth0 address 02:00:00:00:00:07")
        out = m.command("cd /sys/class/net/eth0; sort -u carrier statistics/*_errors; cd")
        assert out.split() == ["0", "1"], out
        ping(m)
        off(m)


def checkpoint():
    """A connection lives through three checkpoints, and no byte of it is lost or doubled."""
    server = Server(send_slowly)
    with boot("-s", "2,virtio-net,slirp") as m:
        m.send(f"nc 10.0.2.2 {server.port} </dev/null | sha256sum\n")
        m.expect("\n")
        for i in range(3):
            time.sleep(0.6)
            skep("save", *(["--live"] if i == 1 else []), "net", path("checkpoint.skep"))
        out = m.expect(PROMPT)
        assert digest(DATA) in out, out
        off(m)


def restore():
    """What is in a file goes on: the address stays, the network works, and a connection of the
    process that is no more ends by a reset, at once."""
    server = Server(lambda c: c.recv(1))
    again = Server(send_data)
    with boot("-s", "2,virtio-net,slirp") as m:
        m.send(f"nc 10.0.2.2 {server.port}; echo nc ended with $?\n")
        m.expect("\n")
        time.sleep(1)
        skep("save", "--suspend", "net", path("restore.skep"))
        m.exits(SUSPENDED)
    skep("verify", path("restore.skep"))
    with restored(path("restore.skep")) as m:
        m.expect("nc ended with ", 10)
        m.expect(PROMPT)
        names, values = m.command("grep ^Tcp: /proc/net/snmp").split("\n")[:2]
        assert dict(zip(names.split(), values.split()))["EstabResets"] == "1", values
        ping(m)
        out = m.command(f"nc 10.0.2.2 {again.port} </dev/null | sha256sum")
        assert digest(DATA) in out, out
        # And once more, from a machine that was restored.
        skep("save", "--suspend", "net", path("restore2.skep"))
        m.exits(SUSPENDED)
    with restored(path("restore2.skep")) as m:
        m.send("\n")
        m.expect(PROMPT)
        ping(m)
        off(m)


def queues():
    """Four pairs of queues for four processors; and an MTU that the guest is told."""
    server = Server(send_data)
    with boot("-c", "2", "-s", "2,virtio-net,slirp,queues=2,mtu=1400") as m:
        assert m.command("cat /sys/class/net/eth0/mtu").strip() == "1400"
        assert m.command("ls /sys/class/net/eth0/queues | wc -l").strip() == "4"
        jobs = " & ".join(f"nc 10.0.2.2 {server.port} </dev/null | sha256sum" for _ in range(3))
        out = m.command(f"{jobs} & wait")
        out = out if out.count(digest(DATA)) == 3 else out + m.command("wait")
        assert out.count(digest(DATA)) == 3, out
        off(m)


def replay():
    """clock.mode=virtual: what the network said is in the log, and a replay needs no network."""
    server = Server(send_data)
    states = []
    for way in ("record", "replay"):
        dump = path(f"{way}.txt")
        args = ["-o", "clock.mode=virtual", "-o", f"input.{way}={path('net.log')}", "--dump-state", dump,
                "-s", "2,virtio-net,slirp"]
        script = (f"ifconfig eth0 up; udhcpc -i eth0 -n -q -s /tests/lease; ping -c 2 10.0.2.2; "
                  f"nc 10.0.2.2 {server.port} </dev/null | head -c 1000000 | sha256sum; poweroff -f\n")
        with linux("cloud", "quiet", *args, modules=MODULES, name="replay") as m:
            if way == "record":
                m.expect(PROMPT)
                m.send(script)
            m.exits(1, 170)
            assert digest(DATA[:1000000]).encode() in m.text, m.text[-2000:]
            states.append(open(dump).read())
    assert states[0] == states[1], "the replay ended in another state"


# ---- Two machines --------------------------------------------------------------

def pair():
    """Two machines on one wire: the first one listens, and the wire outlives either of them."""
    wire = f"2,virtio-net,unix:{path('wire')}"
    with boot("-s", wire, name="left", dhcp=False) as a, boot("-s", wire, name="right", dhcp=False) as b:
        a.command("ifconfig eth0 10.1.1.1 up")
        b.command("ifconfig eth0 10.1.1.2 up")
        ping(a, "10.1.1.2")
        b.send("nc -l -p 7000 | sha256sum\n")
        b.expect("\n")
        time.sleep(1)
        a.send("seq 1 400000 | nc 10.1.1.2 7000; echo sent\n")
        a.expect("\n")
        for name in ("left", "right"):
            skep("save", name, path(name + ".skep"))
        a.expect("sent\r\n")
        want = digest("".join(f"{i}\n" for i in range(1, 400001)).encode())
        out = b.expect(PROMPT)
        assert want in out, out
        skep("save", "--suspend", "left", path("left.skep"))
        a.exits(SUSPENDED)
        with restored(path("left.skep")) as c:
            c.send("\n")
            c.expect(PROMPT)
            time.sleep(1)
            ping(c, "10.1.1.2")
            ping(b, "10.1.1.1")
            c.kill()


# ---- vsock ---------------------------------------------------------------------

def vsock_program():
    """A static program for the guest, which fetches it over the network."""
    out = path("vsock")
    p = subprocess.run([os.environ.get("CC", "gcc"), "-static", "-O2", "-o", out,
                        os.path.join(HERE, "guests", "vsock.c")], capture_output=True, text=True)
    if p.returncode:
        raise Skip(f"the host's compiler makes no static programs: {p.stderr[-200:]}")
    data = open(out, "rb").read()

    def give(c):
        c.sendall(data)
        c.shutdown(socket.SHUT_WR)
        c.recv(1)
    return Server(give)


def dial(uds, port, timeout=20):
    end = time.monotonic() + timeout
    while True:
        c = socket.socket(socket.AF_UNIX)
        c.settimeout(30)
        c.connect(uds)
        c.sendall(b"CONNECT %d\n" % port)
        answer = b""
        while not answer.endswith(b"\n"):
            d = c.recv(1)
            if not d:
                break
            answer += d
        if answer.startswith(b"OK "):
            return c
        c.close()
        assert time.monotonic() < end, "nobody listens in the guest"
        time.sleep(0.2)


def vsock():
    """Echo both ways, 8 MiB through 128 KiB of credit, and a reset of the transport at a restore."""
    program, uds, said = vsock_program(), path("v.sock"), []

    def from_guest(c):
        said.append(receive(c))
    sink = Server(from_guest, uds + "_5000")
    with boot("-s", "2,virtio-net,slirp", "-s", f"3,virtio-vsock,{uds}") as m:
        m.command(f"nc 10.0.2.2 {program.port} </dev/null >/tmp/vsock; chmod +x /tmp/vsock")
        m.command("/tmp/vsock echo 6000 2>/tmp/echo.log &")
        with dial(uds, 6000) as c:
            t = threading.Thread(target=lambda: (c.sendall(DATA), c.shutdown(socket.SHUT_WR)))
            t.start()
            got = receive(c)
            t.join()
            assert got == DATA, f"{len(got)} bytes came back"
        out = m.command("seq 1 100000 | /tmp/vsock call 2 5000")
        assert "vsock: ended: whole" in out, out
        want = "".join(f"{i}\n" for i in range(1, 100001)).encode()
        assert said == [want], [len(s) for s in said]
        out = m.command("/tmp/vsock call 2 5001 </dev/null")
        assert "reset by peer" in out, out
        # A connection that stands, in a checkpoint and then in a restore.
        with dial(uds, 6000) as c:
            c.sendall(b"before")
            assert c.recv(6) == b"before"
            skep("save", "net", path("vsock.skep"))
            c.sendall(b"after")
            assert c.recv(5) == b"after"
            skep("save", "--suspend", "net", path("vsock.skep"))
            m.exits(SUSPENDED)
    with restored(path("vsock.skep")) as m:
        m.send("\n")
        m.expect(PROMPT)
        out = m.command("sleep 1; cat /tmp/echo.log")
        assert "connection ended: Connection reset by peer" in out, out
        with dial(uds, 6000) as c:
            c.sendall(b"again")
            assert c.recv(5) == b"again"
        off(m)
    sink.s.close()


# ---- Console ports --------------------------------------------------------------

def console():
    """A login on hvc0, and a named port that is a byte channel, over a restore."""
    hvc, chan = path("hvc"), path("chan")
    args = ("-s", f"3,virtio-console,port.0.path=unix={hvc},port.2.path=unix={chan},"
                  "port.2.name=org.skep.test")

    def connect(where):
        c = socket.socket(socket.AF_UNIX)
        c.settimeout(30)
        c.connect(where)
        return c

    with boot(*args, dhcp=False) as m, connect(chan) as c, connect(hvc) as h:
        out = m.command("cat /sys/class/virtio-ports/*/name")
        assert "org.skep.test" in out, out
        m.command("exec 5<>/dev/vport0p2")
        m.command("(read l; echo heard $l; cat) <&5 >/tmp/chan &")
        c.sendall(b"one line\n")
        m.command("seq 1 50000 >&5 &")
        m.command("echo to hvc >/dev/hvc0")
        got = b""
        while len(got) < 288894:
            got += c.recv(BLOCK)
        assert got.split()[-1] == b"50000", got[-20:]
        text = b""
        while b"to hvc" not in text:
            text += h.recv(BLOCK)
        assert "heard one line" in m.command("sleep 1; cat /tmp/chan")
        skep("save", "--suspend", "net", path("console.skep"))
        m.exits(SUSPENDED)
    with restored(path("console.skep")) as m:
        m.send("\n")
        m.expect(PROMPT)
        c = connect(chan)
        c.sendall(b"second line\n")
        assert "second line" in m.command("sleep 1; cat /tmp/chan")
        off(m)


run(slirp, checkpoint, restore, queues, replay, pair, vsock, console)
