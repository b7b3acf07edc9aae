"""The two machines that the bench saves and restores, with the same guest (bench/guest/memory.c).

A Machine is a process whose first serial port is our pipe.  Each clock begins right before the
process is made, and posix_spawn is used because subprocess.Popen costs a millisecond of its own.
"""
import array
import errno
import json
import os
import signal
import socket
import tempfile
import threading
import time

from common import Failed, QEMU, SKEP

PATIENCE = 120      # seconds for any one answer


def spawn(argv, stdin, stdout, stderr, keep=()):
    """Starts argv; its descriptors are ours by number, and those in keep.  Returns (pid, begin)."""
    actions = [(os.POSIX_SPAWN_DUP2, fd, n) for n, fd in enumerate((stdin, stdout, stderr))]
    for fd in keep:
        os.set_inheritable(fd, True)
    try:
        begin = time.monotonic()
        return os.posix_spawn(argv[0], argv, os.environ, file_actions=actions), begin
    finally:
        for fd in keep:
            os.set_inheritable(fd, False)


def command(argv):
    """Runs argv to its end: ((begin, end), exit code, what it printed)."""
    with tempfile.TemporaryFile() as out, open(os.devnull) as null:
        pid, begin = spawn(argv, null.fileno(), out.fileno(), out.fileno())
        timer = threading.Timer(PATIENCE, os.kill, (pid, signal.SIGKILL))
        timer.start()
        _, status = os.waitpid(pid, 0)
        end = time.monotonic()
        timer.cancel()
        out.seek(0)
        return (begin, end), os.waitstatus_to_exitcode(status), out.read().decode(errors="replace")


def extents(path):
    """[(offset, bytes)] of what a sparse file holds."""
    parts = []
    with open(path, "rb") as f:
        end = os.fstat(f.fileno()).st_size
        at = 0
        while at < end:
            try:
                at = os.lseek(f.fileno(), at, os.SEEK_DATA)
            except OSError as e:
                if e.errno == errno.ENXIO:      # a hole to the end
                    break
                raise
            hole = os.lseek(f.fileno(), at, os.SEEK_HOLE)
            f.seek(at)
            parts.append((at, f.read(hole - at)))
            at = hole
    return parts


def bare_write(path, parts, step, sync):
    """Seconds from open to close, with fsync or without."""
    views = [(at, memoryview(data)) for at, data in parts]
    begin = time.monotonic()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        for at, view in views:
            done = 0
            while done < len(view):
                done += os.pwrite(fd, view[done:done + step], at + done)
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)
    return time.monotonic() - begin


class Console(threading.Thread):
    """Reads a guest's serial port: ticks are bytes of 0x80 and above, the rest are its replies."""

    def __init__(self, fd):
        super().__init__(daemon=True)
        self.fd = fd
        self.changed = threading.Condition()
        self.text = b""             # replies not yet taken
        self.first = None           # when the first tick came, and its count
        self.last = None            # the newest tick, and its count
        self.gaps = []              # (begin, end) of waits for a tick of more than 1.5 ms
        self.read = None            # when the newest bytes came
        self.replied = None         # when those came that ended the last reply
        self.ended = False
        self.start()

    def run(self):
        while True:
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                data = b""
            now = time.monotonic()
            with self.changed:
                self._take(data, now)
                self.changed.notify_all()
                if self.ended:
                    break
        os.close(self.fd)

    def _take(self, data, now):
        self.read = now
        ticks = bytes(b for b in data if b >= 0x80)
        self.text += bytes(b for b in data if b < 0x80)
        if ticks:
            if self.first is None:
                self.first = (now, ticks[0] & 0x7f)
            if self.last and now - self.last[0] > 0.0015:
                self.gaps.append((self.last[0], now))
            self.last = (now, ticks[-1] & 0x7f)
        self.ended = not data

    def wait(self, what, ready):
        """Waits until ready() is not None and returns it; the condition's lock is held there."""
        end = time.monotonic() + PATIENCE
        with self.changed:
            while True:
                v = ready()
                if v is not None:
                    return v
                if self.ended:
                    raise Failed(f"the machine ended before {what} came")
                if not self.changed.wait(max(0, end - time.monotonic())):
                    raise Failed(f"{what} did not come within {PATIENCE} s")

    def reply(self, word):
        """The number after the word, or "" if there is none on its line."""
        def ready():
            at = self.text.find(word)
            end = self.text.find(b"\n", at)
            if at < 0 or end < 0:
                return None
            line, self.text = self.text[at:end], self.text[end + 1:]
            self.replied = self.read
            return line[len(word):].strip().decode()
        return self.wait(f"'{word.decode()}'", ready)

    def first_tick(self):
        return self.wait("the first tick", lambda: self.first)

    def longest_gap(self, begin, end):
        """The longest time without a tick that touches [begin, end], in ms; 1.5 at least."""
        self.wait("a tick", lambda: self.last if self.last and self.last[0] > end else None)
        with self.changed:
            inside = [b - a for a, b in self.gaps if a < end and b > begin]
        return max(inside, default=0.0015) * 1000


class Machine:
    def __init__(self, argv, scratch, keep=()):
        self.argv, self.scratch = argv, scratch
        self.errors = open(os.path.join(scratch, "errors"), "w+b")
        inside, self.stdin = os.pipe()
        out, outside = os.pipe()
        try:
            self.pid, self.begin = spawn(argv, inside, outside, self.errors.fileno(), keep)
        except OSError:
            os.close(self.stdin)
            os.close(out)
            raise
        finally:
            os.close(inside)
            os.close(outside)
        self.console = Console(out)

    def ask(self, line, word):
        os.write(self.stdin, line.encode() + b"\n")
        return self.console.reply(word.encode())

    def ready(self):
        self.console.reply(b"ready")

    def fill(self, start, count, seed):
        return self.ask(f"fill {start} {count} {seed}", "filled")

    def stamp(self, start, count, seed):
        return self.ask(f"stamp {start} {count} {seed}", "stamped")

    def longest_gap(self, begin, end):
        return self.console.longest_gap(begin, end)

    def walk(self, start, count):
        return self.ask(f"walk {start} {count}", "walked")

    def stderr(self):
        self.errors.seek(0)
        return self.errors.read().decode(errors="replace").strip()

    def _reap(self, seconds):
        end = time.monotonic() + seconds
        while self.pid:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = None
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > end:
                return None
            time.sleep(0.005)
        return None

    def reset(self):
        """The guest ends the machine itself, so that it can write its statistics."""
        os.write(self.stdin, b"reset\n")
        code = self._reap(PATIENCE)
        if code != 0:
            raise Failed(f"{self.argv[0]} ended with {code}: {self.stderr()[-400:]}")

    def close(self):
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            self._reap(PATIENCE)
        self.console.join()
        os.close(self.stdin)
        self.errors.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        said = self.stderr()[-400:] if isinstance(value, Failed) else ""
        self.close()
        if said:
            raise Failed(f"{value}; it said: {said}") from value


# --- skep ---

NAME = "bench"


class Skep(Machine):
    @classmethod
    def start(cls, ram, kernel, scratch):
        os.environ["SKEP_RUNTIME_DIR"] = scratch
        return cls([SKEP, "run", "-c", "1", "-m", f"{ram}M", "-s", "0,hostbridge", "-s", "31,lpc",
                    "-l", "com1,stdio", "-o", "backend=soft", "--kernel", kernel, NAME], scratch)

    @classmethod
    def restore(cls, path, scratch, *options):
        """The statistics are in `stats` of the scratch directory once reset() has returned."""
        os.environ["SKEP_RUNTIME_DIR"] = scratch
        stats = os.path.join(scratch, "stats")
        return cls([SKEP, "restore", *options, f"--stats={stats}", path], scratch)

    def save(self, path, *options):
        """Returns (begin, end) of the command, and what it says it did."""
        took, code, text = command([SKEP, "save", "--json", *options, NAME, path])
        if code:
            raise Failed(f"skep save ended with {code}: {text.strip()[-400:]}")
        try:
            reply = json.loads(text)
            return took, {k: int(reply[k]) for k in ("bytes", "pause_ns", "elapsed_ns")}
        except (ValueError, KeyError, TypeError):
            raise Failed(f"skep save --json printed: {text.strip()[:200]}") from None

    def statistics(self):
        with open(os.path.join(self.scratch, "stats")) as f:
            return json.load(f)


# --- QEMU ---

class Qmp:
    """QEMU's monitor protocol over a Unix socket."""

    def __init__(self, path, machine):
        end = time.monotonic() + PATIENCE
        self.s = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self.s.connect(path)
                break
            except OSError:
                if time.monotonic() > end or machine._reap(0) is not None:
                    raise Failed(f"QEMU's monitor does not answer: {machine.stderr()}") from None
                time.sleep(0.005)
        self.s.settimeout(PATIENCE)
        self.data = b""
        self._next()                # its greeting
        self.call("qmp_capabilities")

    def _next(self):
        while b"\n" not in self.data:
            try:
                more = self.s.recv(65536)
            except TimeoutError:
                more = b""
            if not more:
                raise Failed("QEMU's monitor is silent")
            self.data += more
        line, self.data = self.data.split(b"\n", 1)
        return json.loads(line)

    def call(self, command, fd=None, **arguments):
        line = json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n"
        if fd is None:
            self.s.sendall(line)
        else:
            self.s.sendmsg([line], [(socket.SOL_SOCKET, socket.SCM_RIGHTS,
                                     array.array("i", [fd]))])
        while True:
            m = self._next()
            if "error" in m:
                raise Failed(f"QEMU refuses {command}: {m['error'].get('desc')}")
            if "return" in m:
                return m["return"]

    def migrated(self):
        """Waits for the event that says how a migration ended."""
        while True:
            m = self._next()
            if m.get("event") == "MIGRATION":
                status = m["data"]["status"]
                if status in ("failed", "cancelled"):
                    raise Failed(f"QEMU's migration {status}")
                if status == "completed":
                    return

    def close(self):
        self.s.close()


class Qemu(Machine):
    @classmethod
    def start(cls, ram, kernel, scratch, *options, keep=()):
        path = os.path.join(scratch, "qmp")
        if os.path.exists(path):
            os.unlink(path)
        m = cls([QEMU, "-accel", "tcg", "-M", "q35", "-m", f"{ram}M", "-nodefaults", "-display",
                 "none", "-serial", "stdio", "-no-reboot", "-kernel", kernel, "-qmp",
                 f"unix:{path},server=on,wait=off", *options], scratch, keep)
        m.path, m.qmp = path, None
        return m

    @classmethod
    def restore(cls, path, ram, kernel, scratch):
        with open(path, "rb") as f:
            return cls.start(ram, kernel, scratch, "-incoming", f"fd:{f.fileno()}",
                             keep=(f.fileno(),))

    def monitor(self):
        if not self.qmp:
            self.qmp = Qmp(self.path, self)
            self.qmp.call("migrate-set-capabilities",
                          capabilities=[{"capability": "events", "state": True}])
            # As fast as it goes, and in one pass: the guest's ticks must not keep it going.
            self.qmp.call("migrate-set-parameters", **{"max-bandwidth": 1 << 50,
                                                       "downtime-limit": 2000000})
        return self.qmp

    def save(self, path, stopped=True, way="fd"):
        """
        Returns (begin, end).  stopped: as skep's save without --live, the guest stands still.
        way: "fd", the file itself as the channel; "exec", through a pipe and cat.
        """
        qmp = self.monitor()
        if stopped:
            qmp.call("stop")
        begin = time.monotonic()
        if way == "exec":
            qmp.call("migrate", uri=f"exec:cat > {path}")
        else:
            with open(path, "wb") as f:
                qmp.call("getfd", fd=f.fileno(), fdname="file")
                qmp.call("migrate", uri="fd:file")
        qmp.migrated()
        end = time.monotonic()
        while stopped and qmp.call("query-status")["status"] != "postmigrate":
            time.sleep(0.001)
        if stopped:
            qmp.call("cont")
        return begin, end

    def close(self):
        if self.qmp:
            self.qmp.close()
        super().close()
