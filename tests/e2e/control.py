#!/usr/bin/python3
"""The control socket: names, commands, and clients that do not behave."""
import array
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import (BUILD, ERROR, POWEROFF, PROMPT, REBOOT, SKEP, SUSPENDED, TIERS, Machine, command, freestanding,
                 linux, run, scratch)

RUN = os.environ["SKEP_RUNTIME_DIR"]


class Client:
    """One connection, by hand."""

    def __init__(self, name, greeting=True):
        self.s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.s.connect(os.path.join(RUN, name + ".sock"))
        self.s.settimeout(20)
        self.buf = b""
        self.events = []
        if greeting:
            self.greeting = self.line()

    def line(self):
        while b"\n" not in self.buf:
            data = self.s.recv(65536)
            if not data:
                raise EOFError(self.buf)
            self.buf += data
        line, self.buf = self.buf.split(b"\n", 1)
        return json.loads(line)

    def send(self, execute, fd=None, **arguments):
        text = json.dumps({"execute": execute, "arguments": arguments}).encode() + b"\n"
        anc = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
        self.s.sendmsg([text], anc)

    def reply(self):
        while True:
            line = self.line()
            if "event" not in line:
                return line
            self.events.append(line)

    def call(self, execute, fd=None, **arguments):
        self.send(execute, fd, **arguments)
        return self.reply()

    def close(self):
        self.s.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def spin(*args, name="web", ram="16M", wait=True):
    m = Machine("--kernel", freestanding("spin"), *args, ram=ram, name=name)
    if wait:
        ready(m, name)
    return m


def ready(m, name):
    path = os.path.join(RUN, name + ".sock")
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if m.p.poll() is not None:
            m.fail(f"the machine ended with {m.p.returncode}")
        try:
            with Client(name) as c:
                if status(c)["state"] != "starting":
                    return
        except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError, EOFError):
            pass
        time.sleep(0.01)
    m.fail(f"no socket at {path}")


def status(c):
    r = c.call("status")
    assert "return" in r, r
    return r["return"]


def says(code, words, *argv, timeout=60):
    got, text = command(*argv, timeout=timeout)
    assert got == code, f"{argv}: {got} where {code} was due: {text}"
    for w in words:
        assert w in text, f"{argv}: no {w!r} in {text!r}"
    return text


# ---- Names -------------------------------------------------------------------

def two_of_a_name():
    with spin() as m:
        code, text = command("run", "-m", "16M", "--kernel", freestanding("spin"), "web", timeout=20)
        assert code == ERROR, code
        for w in '"web" runs already', f"pid {m.p.pid}", "skep stop web", "another name":
            assert w in text, text
        says(0, ["running"], "status", "web")


def stale_socket():
    m = spin()
    m.p.kill()
    m.p.wait()
    m.kill()
    assert os.path.exists(os.path.join(RUN, "web.sock"))
    says(ERROR, ['no machine named "web" runs'], "status", "web")
    with spin():
        says(0, ["running"], "status", "web")


def one_of_many():
    """After a kill many start at once: one of them gets the name."""
    m = spin()
    m.kill()
    many = [spin(wait=False) for _ in range(8)]
    end = time.monotonic() + 30
    while sum(x.p.poll() is None for x in many) > 1 and time.monotonic() < end:
        time.sleep(0.05)
    left = [x for x in many if x.p.poll() is None]
    assert len(left) == 1, [x.p.poll() for x in many]
    ready(left[0], "web")
    with Client("web") as c:
        assert status(c)["pid"] == left[0].p.pid
    for x in many:
        if x is not left[0]:
            assert x.p.returncode == ERROR and "runs already" in x.stderr(), x.stderr()
        x.kill()


def files_go_with_the_machine():
    with spin() as m:
        says(0, [], "stop", "--force", "web")
        m.exits(POWEROFF, 20)
    left = [f for f in os.listdir(RUN) if f.startswith("web.")]
    assert not left, left


def odd_names():
    for name in "two words", "züri", "50%", "a" * 63, "x.sock":
        with spin(name=name.replace("%", "%%"), wait=False) as m:
            ready(m, name)
            says(0, [name], "list")
            says(0, [name], "status", "--", name)
    for name in "a/b", "../x", ".hidden", "", "a" * 64:
        says(ERROR, ["cannot be a machine's name"], "status", name)


def long_directory():
    deep = scratch()
    for i in range(6):
        deep = os.path.join(deep, "d" * 30)
    os.makedirs(deep)
    old = os.environ["SKEP_RUNTIME_DIR"]
    os.environ["SKEP_RUNTIME_DIR"] = os.path.join(deep, "run")
    try:
        with spin(wait=False) as m:
            end = time.monotonic() + 20
            while command("status", "web")[0] and time.monotonic() < end:
                time.sleep(0.05)
            says(0, ["web"], "list")
            says(0, [], "stop", "--force", "--wait=20", "web")
            m.exits(POWEROFF, 20)
    finally:
        os.environ["SKEP_RUNTIME_DIR"] = old


def unknown_name():
    says(ERROR, ["none of yours"], "status", "web")
    with spin(), spin(name="mail"):
        says(ERROR, ['did you mean "web"', "mail, web"], "status", "wbe")
        says(ERROR, ["running: mail, web"], "pause", "something-else")


# ---- The directory --------------------------------------------------------------

def permissions():
    with spin():
        for name, mode in ("", 0o40700), ("web.sock", 0o140600), ("web.lock", 0o100600):
            got = os.stat(os.path.join(RUN, name)).st_mode
            assert got == mode, f"{name}: {got:o}"


def with_directory(path, words):
    """A directory that will not do: a note, and the machine runs."""
    old = os.environ["SKEP_RUNTIME_DIR"]
    os.environ["SKEP_RUNTIME_DIR"] = path
    try:
        p = subprocess.run([SKEP, "run", "-m", "16M", "-o", "clock.mode=virtual", "-o",
                            "clock.limit=1000", "--kernel", freestanding("spin"), "web"],
                           stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        assert p.returncode == 2, (p.returncode, p.stderr)
        for w in ["no control socket", *words]:
            assert w in p.stderr, p.stderr
        p = subprocess.run([SKEP, "run", "-m", "16M", "-o", "clock.mode=virtual", "-o", "control=none",
                            "-o", "clock.limit=1000", "--kernel", freestanding("spin"), "web"],
                           stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        assert p.returncode == 2 and "socket" not in p.stderr, (p.returncode, p.stderr)
    finally:
        os.environ["SKEP_RUNTIME_DIR"] = old


def bad_directories():
    path = os.path.join(scratch(), "open")
    os.mkdir(path)
    os.chmod(path, 0o755)
    with_directory(path, ["open to others", "chmod 700"])
    path = os.path.join(scratch(), "link")
    os.symlink(RUN, path)
    with_directory(path, ["not a directory"])
    path = os.path.join(scratch(), "file")
    open(path, "w").close()
    with_directory(path, ["not a directory"])
    with_directory(os.path.join(scratch(), "missing", "run"), ["cannot be made"])
    if os.geteuid() == 0:
        path = os.path.join(scratch(), "other")
        os.mkdir(path, 0o700)
        os.chown(path, 12345, 12345)
        with_directory(path, ["belongs to user 12345"])


def no_socket():
    with spin("-o", "control=none", wait=False), spin("-o", "control=none", wait=False):
        time.sleep(1)
        says(ERROR, ["no machine named"], "status", "web")


# ---- Commands ---------------------------------------------------------------------

def status_fields():
    with spin("-U", "11111111-2222-3333-4444-555555555555") as m, Client("web") as c:
        assert c.greeting["skep"]["protocol"] == 1 and c.greeting["skep"]["name"] == "web"
        s = status(c)
        for key, value in {"name": "web", "pid": m.p.pid, "state": "running", "cpus": 1,
                           "uuid": "11111111-2222-3333-4444-555555555555", "stopped_for": [],
                           "memory_bytes": 16 << 20, "backend": "soft", "cpu_model": "skep-v2.1",
                           "clock": "realtime", "restored_from": None, "save": None}.items():
            assert s[key] == value, (key, s[key])
        assert 0 < s["touched_bytes"] <= 16 << 20 and s["uptime_ns"] > 0
        time.sleep(0.2)
        assert status(c)["guest_ns"] - s["guest_ns"] > 150_000_000
        out = json.loads(command("status", "--json", "web")[1])
        assert out["pid"] == m.p.pid
        out = json.loads(command("list", "--json")[1])
        assert [x["name"] for x in out] == ["web"]
        says(0, ["save-commit"], "ctl", "web", "help")
        for argv in [["list"], ["status"], ["stats"], ["pause"], ["resume"], ["stop"], ["ctl"]]:
            says(0, ["usage: skep"], *argv, "--help")
            says(ERROR, ["no option --nonsense"], *argv, "--nonsense")
            if argv != ["list"]:
                says(ERROR, ["want"], *argv)


def counters():
    with spin():
        first = json.loads(command("stats", "--json", "web")[1])
        one = first["vcpus"][0]
        assert len(first["vcpus"]) == 1 and one["code"]["blocks"] > 0 and one["translator"]
        assert one["interrupts"]["nmi"] == 0
        says(0, ["vcpu 0", "blocks"], "stats", "web")
        assert " nmi " not in command("stats", "web")[1]
        # They only ever rise.
        second = json.loads(command("stats", "--json", "web")[1])
        for section, values in one.items():
            for name, n in values.items():
                assert second["vcpus"][0][section][name] >= n, (section, name)
        assert second["insns"] >= first["insns"]
    stats = os.path.join(scratch(), "counters.json")
    with spin("--stats", stats):
        says(0, [], "stop", "--force", "--wait=20", "web")
    assert json.loads(open(stats).read())["vcpus"][0]["code"]["blocks"] > 0


def counters_of_translator():
    """Zero where everything is interpreted; what is made, entered and left where it is not."""
    for tier in TIERS:
        stats = os.path.join(scratch(), f"{tier}.json")
        subprocess.run([SKEP, "run", "-m", "256", "-l", "com1,stdio", "-o", "lpc.debug_exit=true", "-o",
                        "control=none", "-o", f"soft.tier={tier}", "--stats", stats, "--kernel",
                        os.path.join(BUILD, "tests", "guests", "smc"), "tiers"],
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=60)
        with open(stats) as f:
            one = json.load(f)["vcpus"][0]["translator"]
        if tier == "interpreter":
            assert not any(one.values()), one
            continue
        for name in ("blocks", "loops", "groups", "code_bytes", "ns", "links", "entries", "exit_interpreter",
                     "exit_unknown", "exit_written"):
            assert one[name] > 0, (name, one)
        assert one["loops"] <= one["blocks"] and one["evictions"] == 0, one
        assert 0 < one["longest_ns"] <= one["ns"], one


def last_snapshot():
    """status names it, and a save that fails says so in JSON, too."""
    file = os.path.join(scratch(), "web.skep")
    with spin():
        assert "snapshot" not in says(0, [], "status", "web")
        says(0, [], "save", "--quiet", "web", file)
        says(0, [f"snapshot    {file}"], "status", "web")
        p = subprocess.run([SKEP, "save", "--json", "web", "/nowhere/web.skep"], capture_output=True, text=True)
        out = json.loads(p.stdout)
        assert p.returncode == 4 and "/nowhere" in out["error"] and out["error"] in p.stderr, p
        assert out["file"] == "/nowhere/web.skep" and out["name"] == "web"


def pause_and_resume():
    with spin() as m, Client("web") as c:
        says(0, [], "pause", "web")
        a = status(c)
        assert a["state"] == "paused" and a["stopped_for"] == ["user"], a
        cpu = os.times()
        time.sleep(0.5)
        assert status(c)["guest_ns"] == a["guest_ns"], "guest time goes on"
        says(0, [], "pause", "web")
        assert c.call("pause")["return"]["changed"] is False
        says(0, [], "resume", "web")
        b = status(c)
        assert b["state"] == "running" and b["guest_ns"] - a["guest_ns"] < 400_000_000
        assert c.call("resume")["return"]["changed"] is False
        # With the time in which it stood, and only that of this once.
        a = status(c)["guest_ns"]
        says(0, [], "pause", "web")
        time.sleep(0.5)
        says(0, [], "resume", "--time=advance", "web")
        b = status(c)["guest_ns"]
        assert 500_000_000 <= b - a < 900_000_000, f"{b - a} ns"
        says(0, [], "pause", "web")
        time.sleep(0.5)
        says(0, [], "resume", "--time=continue", "web")
        a = status(c)["guest_ns"]
        assert a - b < 400_000_000, f"{a - b} ns"
        says(4, ["continue or advance"], "resume", "--time=soon", "web")
        says(4, ["no option"], "pause", "--time=advance", "web")
        for _ in range(200):
            assert c.call("pause")["return"]["state"] == "paused"
            assert c.call("resume")["return"]["state"] == "running"
        says(0, [], "pause", "web")
        says(0, ["paused"], "stop", "web")
        says(0, [], "stop", "--force", "--wait=20", "web")
        m.exits(POWEROFF, 20)


def stop_modes():
    with spin() as m:
        begin = time.monotonic()
        says(ERROR, ["has not ended yet"], "stop", "--wait=0.5", "web")
        assert 0.4 < time.monotonic() - begin < 10
        says(0, [], "stop", "--force", "--wait", "web")
        m.exits(POWEROFF, 20)
    with spin() as m:
        says(0, [], "stop", "--reset", "--wait=20", "web")
        m.exits(REBOOT, 20)
    with spin("-o", "on_reboot=restart") as m:
        says(0, [], "stop", "--reset", "web")
        time.sleep(0.2)
        says(0, ["running"], "status", "web")
        says(0, [], "pause", "web")
        says(0, [], "stop", "--reset", "web")
        time.sleep(0.2)
        says(0, ["paused"], "status", "web")
    with spin(), Client("web") as c:
        assert "there is no mode" in c.call("stop", mode="gently")["error"]["text"]
    says(ERROR, ["choose one"], "stop", "--force", "--reset", "web")


def power_button():
    p = subprocess.Popen([SKEP, "demo", "--run", "web"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                         stderr=subprocess.PIPE)
    try:
        end = time.monotonic() + 30
        while command("status", "web")[0] and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(1)
        code, text = command("stop", "--wait=20", "web")
        assert code == 0, text
        assert p.wait(20) == POWEROFF, p.returncode
    finally:
        p.kill()
        p.communicate()


def events():
    with spin() as m, Client("web") as c, Client("web") as other:
        assert c.call("subscribe") == {"return": {}}
        other.call("pause")
        assert c.line() == {"event": "paused"}
        other.call("resume")
        assert c.line() == {"event": "resumed"}
        other.call("resume")
        other.call("stop", mode="poweroff")
        e = c.line()
        assert (e["event"], e["reason"], e["code"]) == ("stopping", "poweroff", 1), e
        try:
            c.line()
            raise AssertionError("more than the last word")
        except EOFError:
            pass
        assert not other.events
        m.exits(POWEROFF, 20)


def bhyvectl():
    link = os.path.join(scratch(), "bhyvectl")
    os.symlink(os.path.abspath(SKEP), link)

    def ctl(*argv):
        p = subprocess.run([link, *argv], stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
        return p.returncode, (p.stdout + p.stderr).decode()

    file = os.path.join(scratch(), "bhyvectl.skep")
    assert ctl("--help")[0] == 0
    assert ctl("--vm=web")[0] == ERROR and ctl("--destroy")[0] == ERROR
    with spin() as m:
        assert ctl("--vm=web", "--get-stats")[0] == ERROR
        assert ctl("--vm=web", f"--checkpoint={file}")[0] == 0
        assert os.path.getsize(file) > 0
        assert ctl("--vm", "web", "--destroy") == (0, "")
        assert m.p.poll() is not None or m.p.wait(5) == POWEROFF
    with linux("cloud", "quiet", name="web") as m:
        m.expect(PROMPT)
        for n in 1, 2:
            assert ctl("--vm=web", "--inject-nmi") == (0, "")
            end = time.monotonic() + 20
            while m.command("dmesg").count("NMI received for unknown reason") < n:
                assert time.monotonic() < end, "the guest got no NMI"
    with spin() as m:
        assert ctl("--vm=web", "--force-reset")[0] == 0
        m.exits(REBOOT, 20)
    with spin() as m:
        assert ctl("--vm=web", f"--suspend={file}")[0] == 0
        m.exits(SUSPENDED, 20)


# ---- Clients that do not behave -------------------------------------------------------

def garbage():
    with spin(), Client("web", greeting=True) as c:
        for line in (b"hello", b"{", b"[]", b"1", b'"x"', b"{}", b'{"execute": 1}', b"\0\0\0",
                     b"\xff\xfe", b'{"execute": "nonsense"}', b'{"execute": "status", "x": 1}',
                     b'{"execute": "status", "execute": "status"}', b"[" * 5000,
                     b'{"execute": "status", "arguments": []}', b"{\"execute\": \"st\\u0000\"}",
                     b'{"execute": "status", "arguments": {"a": 1}}',
                     b'{"execute": "stop", "arguments": {"mode": 1}}',
                     b'{"execute": "save", "arguments": {"zstd_level": 1e9}}',
                     b'{"execute": "save", "arguments": {"zstd_level": -1}}'):
            c.s.sendall(line + b"\n")
            r = c.reply()
            assert r["error"]["text"] and r["error"]["errno"], (line, r)
        c.s.sendall(b"\n\n" + b'{"execute": "help", "id": {"a": [1, null]}}\n')
        assert c.reply()["id"] == {"a": [1, None]}
        c.s.sendall(b'{"execute": "nonsense", "id": 7}\n')
        assert c.reply()["id"] == 7
        c.s.sendall(os.urandom(30000).replace(b"\n", b" ") + b"\n")
        assert "error" in c.reply()
        assert status(c)["state"] == "running"


def long_lines():
    with spin(), Client("web") as c:
        c.s.sendall(b"x" * 65536)
        assert c.reply()["error"]["errno"] == "EMSGSIZE"
        c.s.sendall(b"x" * 1000000 + b'\n{"execute": "status"}\n')
        assert "return" in c.reply(), "the line after a long one is served"
        fits = b'{"execute": "status", "id": "' + b"i" * 65000 + b'"}\n'
        c.s.sendall(fits * 3)
        for _ in range(3):
            assert len(c.reply()["id"]) == 65000


def byte_by_byte():
    with spin(), Client("web") as c, Client("web") as other:
        for b in b'{"execute": "status", "id": 5}\n':
            c.s.sendall(bytes([b]))
            status(other)
        assert c.reply()["id"] == 5


def half_closed():
    """As a shell's pipe into socat does it: the reply comes, and then the end."""
    with spin(), Client("web") as c:
        c.s.sendall(b'{"execute": "status"}\n' * 50)
        c.s.shutdown(socket.SHUT_WR)
        for _ in range(50):
            assert "return" in c.reply()
        try:
            c.line()
            raise AssertionError("still open")
        except EOFError:
            pass


def hundred_connections():
    with spin() as m:
        first = [Client("web") for _ in range(16)]
        served = sum("skep" in Client("web", greeting=True).greeting for _ in range(84))
        assert served == 0, served
        assert all(status(c)["state"] == "running" for c in first)
        assert len(os.listdir(f"/proc/{m.p.pid}/fd")) < 60
        for c in first:
            c.close()
        for _ in range(100):
            with Client("web") as c:
                assert "skep" in c.greeting, c.greeting
        seen, lock = [], threading.Lock()

        def one():
            try:
                with Client("web") as c:
                    ok = "error" in c.greeting or status(c)["state"] == "running"
            except (BrokenPipeError, ConnectionResetError) as e:
                ok = repr(e)
            with lock:
                seen.append(ok)

        threads = [threading.Thread(target=one) for _ in range(100)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert seen == [True] * 100, seen
        says(0, ["running"], "status", "web")


def gone_in_the_middle():
    with spin() as m:
        before = len(os.listdir(f"/proc/{m.p.pid}/fd"))
        for i in range(200):
            with Client("web", greeting=False) as c:
                c.s.sendall(b'{"execute": "status"}\n{"execute": "sta'[:i % 38])
                if i % 3:
                    c.s.shutdown(socket.SHUT_RDWR)
        fd = os.open("/dev/null", os.O_RDWR)
        for i in range(50):
            with Client("web", greeting=False) as c:
                c.s.sendmsg([b"{"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd] * 5))])
        os.close(fd)
        says(0, ["running"], "status", "web")
        time.sleep(0.2)
        after = len(os.listdir(f"/proc/{m.p.pid}/fd"))
        assert after <= before, (before, after)


def stuck_clients():
    """They ask and do not read: others are answered, and they are dropped after a while."""
    with spin() as m, Client("web") as good:
        before = len(os.listdir(f"/proc/{m.p.pid}/fd"))
        bad = [Client("web", greeting=False) for _ in range(10)]
        for c in bad:
            c.s.settimeout(0.2)
            c.s.sendall(b'{"execute": "subscribe"}\n')
            try:
                for _ in range(300):
                    c.s.sendall(b'{"execute": "help"}\n' * 100)
            except (socket.timeout, BrokenPipeError, ConnectionResetError):
                pass
        begin = time.monotonic()
        for _ in range(200):
            good.call("pause")
            good.call("resume")
        assert time.monotonic() - begin < 5, "a stuck client holds the others"
        with open(f"/proc/{m.p.pid}/status") as f:
            rss = [int(l.split()[1]) for l in f if l.startswith("VmRSS")][0]
        assert rss < 60000, f"{rss} KiB"
        end = time.monotonic() + 30
        while time.monotonic() < end and len(os.listdir(f"/proc/{m.p.pid}/fd")) > before:
            time.sleep(0.5)
        count = 0
        for c in bad:
            c.s.settimeout(5)
            try:
                while c.s.recv(1 << 20):
                    pass
                count += 1
            except ConnectionResetError:
                count += 1
            except socket.timeout:
                pass
        assert count == 10, f"{10 - count} of 10 are still connected"
        status(good)


def stuck_at_the_end():
    """Who does not read its last words does not hold the machine's end."""
    with spin() as m:
        c = Client("web", greeting=False)
        c.s.settimeout(0.3)
        try:
            for _ in range(300):
                c.s.sendall(b'{"execute": "help"}\n' * 100)
        except socket.timeout:
            pass
        begin = time.monotonic()
        says(0, [], "stop", "--force", "--wait=20", "web")
        assert time.monotonic() - begin < 3
        m.exits(POWEROFF, 20)
        c.close()


def stopped_machine():
    """One that does not answer keeps nobody waiting for ever."""
    with spin(name="asleep") as m, spin(name="awake"):
        m.p.send_signal(signal.SIGSTOP)
        try:
            says(0, ["silent", "awake"], "list")
            says(ERROR, ["does not answer", str(m.p.pid)], "pause", "asleep")
        finally:
            m.p.send_signal(signal.SIGCONT)
        says(0, ["running"], "status", "asleep")


# ---- Saves by hand ----------------------------------------------------------------------

def target(flags=os.O_RDWR | os.O_CREAT):
    """A new file that has lost its name already; or an old one, opened otherwise."""
    path = os.path.join(scratch(), "by-hand.skep")
    if not flags & os.O_CREAT:
        return os.open(path, flags)
    if os.path.exists(path):
        os.unlink(path)
    return os.open(path, flags, 0o600)


def saved(c, **arguments):
    """What a save to a new file returns."""
    fd = target()
    r = c.call("save", fd, **arguments)
    os.close(fd)
    assert "return" in r, r
    return r["return"]


def save_by_hand():
    with spin() as m, Client("web") as c, Client("web") as other:
        fd = target()
        r = saved(c)
        assert r["bytes"] > 0 and len(r["digest"]) == 32, r
        assert status(other)["state"] == "saving" and status(other)["save"]["written"]
        assert other.call("save", fd)["error"]["errno"] == "EBUSY"
        assert other.call("save-commit")["error"]["errno"] == "EPERM"
        assert c.call("save-commit") == {"return": {}}
        assert status(other)["state"] == "running"
        assert c.call("save-commit")["error"]["errno"] == "ENOENT"
        assert c.call("save")["error"]["errno"] == "EBADF"
        for bad in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_APPEND):
            b = target(bad)
            assert "descriptor" in c.call("save", b)["error"]["text"]
            os.close(b)
        r, w = os.pipe()
        assert "regular" in c.call("save", w)["error"]["text"]
        assert "choose one" in c.call("save", fd, suspend=True, live=True)["error"]["text"]
        saved(c)
        assert c.call("save-abort") == {"return": {}}
        for x in r, w, fd:
            os.close(x)
        assert m.p.poll() is None


def save_and_leave():
    """The client goes before it commits: the machine goes on, and others may save."""
    with spin() as m, Client("web") as other:
        before = len(os.listdir(f"/proc/{m.p.pid}/fd"))
        for i in range(20):
            fd = target()
            with Client("web") as c:
                c.send("save", fd, suspend=bool(i & 1))
                if i & 2:
                    r = c.reply()
                    while r.get("error", {}).get("errno") == "EBUSY":
                        time.sleep(0.01)    # the one before is being given up
                        os.ftruncate(fd, 0)
                        r = c.call("save", fd, suspend=bool(i & 1))
                    assert "return" in r, r
                    assert status(other)["state"] == "saving"
            os.close(fd)
            end = time.monotonic() + 20
            while status(other)["state"] != "running":
                assert time.monotonic() < end, status(other)
                time.sleep(0.01)
        a = status(other)["guest_ns"]
        time.sleep(0.1)
        assert status(other)["guest_ns"] > a
        assert len(os.listdir(f"/proc/{m.p.pid}/fd")) <= before


def save_overlaps_pause():
    with spin() as m, Client("web") as c, Client("web") as other:
        assert other.call("pause")["return"]["changed"]
        saved(c)
        assert c.call("save-commit") == {"return": {}}
        assert status(other)["state"] == "paused", "the save made it go on"
        saved(c, suspend=True)
        assert other.call("resume")["return"]["changed"]
        s = status(other)
        assert s["state"] == "saving" and s["stopped_for"] == ["save"], "resume made it go on"
        assert c.call("save-abort") == {"return": {}}
        assert status(other)["state"] == "running"
        assert c.call("subscribe") and saved(c, suspend=True)
        assert c.call("save-commit") == {"return": {}}, "the reply comes before the end"
        m.exits(SUSPENDED, 20)
        reasons = [e for e in c.events + [c.line()] if e["event"] == "stopping"]
        assert not reasons or reasons[0]["reason"] == "suspended", reasons


def end_during_save():
    """The machine is ended while a save waits for its client: it does not wait long."""
    with spin() as m, Client("web") as c:
        saved(c)
        begin = time.monotonic()
        says(0, [], "stop", "--force", "--wait=20", "web")
        assert time.monotonic() - begin < 6
        m.exits(POWEROFF, 20)


if __name__ == "__main__":
    run(two_of_a_name, stale_socket, one_of_many, files_go_with_the_machine, odd_names,
        long_directory, unknown_name, permissions, bad_directories, no_socket, status_fields, counters,
        counters_of_translator, pause_and_resume, last_snapshot, stop_modes, power_button, events, bhyvectl, garbage, long_lines,
        byte_by_byte, half_closed, hundred_connections, gone_in_the_middle, stuck_clients,
        stuck_at_the_end, stopped_machine, save_by_hand, save_and_leave, save_overlaps_pause,
        end_during_save)
