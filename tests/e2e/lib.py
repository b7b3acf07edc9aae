"""What the end-to-end tests share: a machine to talk to, kernels to boot, cases to count.

SKEP names another command than build/skep.  A test is a function that returns, or raises
AssertionError (failed) or Skip (the host lacks something); run() calls them in turn and prints
"ok NAME", "not ok NAME - why" or "skip NAME - why" for scripts/check.
"""
import atexit
import fcntl
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
BUILD = os.path.join(TOP, "build")
GUEST = os.path.join(BUILD, "guest")
SKEP = os.environ.get("SKEP", os.path.join(BUILD, "skep"))
LONG = bool(os.environ.get("SKEP_TEST_LONG"))
TIERS = ("interpreter", "translator")   # soft.tier: what a test that is for both runs with, in turn

REBOOT, POWEROFF, HALT, TRIPLE, ERROR, SUSPENDED = range(6)
PROMPT = b"skep:~# "


class Skip(Exception):
    """The host lacks what the message names."""


def scratch():
    """A directory of this test's own, removed by run()."""
    if not hasattr(scratch, "path"):
        scratch.path = tempfile.mkdtemp(prefix="skep-e2e-")
        # A machine's name is taken in its runtime directory only: tests run side by side.
        os.environ["SKEP_RUNTIME_DIR"] = os.path.join(scratch.path, "run")
    return scratch.path


scratch()
atexit.register(shutil.rmtree, scratch.path, ignore_errors=True)


def guest_locked(function):
    """Two tests may want the same kernel at once: the second waits and finds it there."""
    def wrapped(*args):
        os.makedirs(GUEST, exist_ok=True)
        with open(os.path.join(GUEST, ".lock"), "w") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            return function(*args)
    return wrapped


@guest_locked
def kernel(flavour):
    """Path of Debian's current kernel, fetched when it is not there."""
    p = subprocess.run([os.path.join(TOP, "scripts/fetch-kernel"), flavour],
                       capture_output=True, text=True)
    if p.returncode:
        raise Skip(f"Debian's {flavour} kernel: {(p.stderr.strip().splitlines() or ['?'])[-1]}")
    return os.path.join(GUEST, flavour, "vmlinuz")


@guest_locked
def _initrd(flavour, modules):
    out = os.path.join(GUEST, flavour, "-".join(("e2e",) + modules) + ".gz")
    trees = [os.path.join(TOP, "scripts"), os.path.join(HERE, "tree"),
             os.path.join(GUEST, flavour, "modules")]
    newest = max(os.path.getmtime(os.path.join(d, f)) for t in trees
                 for d, _, files in os.walk(t) for f in files + ["."])
    if not os.path.exists(out) or os.path.getmtime(out) < newest:
        subprocess.run([os.path.join(TOP, "scripts/mkinitramfs"), "-m", " ".join(modules), out,
                        flavour, os.path.join(HERE, "tree")], check=True)
    return out


def initrd(flavour, modules=()):
    """Path of the initramfs with the scripts of tests/e2e/tree/tests in /tests, and these kernel
    modules, which are loaded at boot with what they depend on ("virtio_pci", "virtio_blk")."""
    kernel(flavour)
    return _initrd(flavour, tuple(modules))


def freestanding(name):
    """Builds tests/e2e/guests/NAME.S and returns the multiboot ELF's path."""
    out = os.path.join(scratch(), name + ".elf")
    if not os.path.exists(out):
        subprocess.run([os.path.join(TOP, "scripts/build-guest"), "-m", "32", "-o", out,
                        os.path.join(HERE, "guests", name + ".S")], check=True)
    return out


class Machine:
    """A running `skep run`, its first serial port on our pipes."""

    def __init__(self, *args, ram="512M", name="e2e", console=("-l", "com1,stdio"), argv=None):
        self.argv = argv or [SKEP, "run", "-c", "1", "-m", ram, "-s", "0,hostbridge", "-s", "31,lpc",
                             *console, *args, name]
        self.text = b""          # all that was read
        self.at = 0              # how far expect() has looked
        self.errors = tempfile.TemporaryFile(dir=scratch())
        self.begin = time.monotonic()
        self.p = subprocess.Popen(self.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=self.errors)
        os.set_blocking(self.p.stdout.fileno(), False)

    def stderr(self):
        self.errors.seek(0)
        return self.errors.read().decode(errors="replace")

    def _read(self, timeout):
        """Reads what is there within timeout; False at end of file."""
        if not select.select([self.p.stdout], [], [], max(0, timeout))[0]:
            return True
        data = os.read(self.p.stdout.fileno(), 65536)
        self.text += data
        return bool(data)

    def fail(self, why):
        tail = self.text[-3000:].decode(errors="replace")
        print(f"--- console ---\n{tail}\n--- stderr ---\n{self.stderr()[-3000:]}", flush=True)
        self.kill()
        raise AssertionError(why)

    def expect(self, what, timeout=150):
        """Waits for the bytes; returns what came before them."""
        what = what.encode() if isinstance(what, str) else what
        end = time.monotonic() + timeout
        while True:
            i = self.text.find(what, self.at)
            if i >= 0:
                before = self.text[self.at:i]
                self.at = i + len(what)
                return before.decode(errors="replace")
            left = end - time.monotonic()
            if left <= 0:
                self.fail(f"{what!r} did not come within {timeout} s")
            if not self._read(left):
                i = self.text.find(what, self.at)
                if i < 0:
                    self.fail(f"the machine ended ({self.p.wait()}) before {what!r} came")

    def send(self, text):
        self.p.stdin.write(text.encode() if isinstance(text, str) else text)
        self.p.stdin.flush()

    def command(self, line, timeout=60):
        """Types a line at the shell's prompt; returns what it printed, without the echo."""
        self.send(line + "\n")
        out = self.expect(PROMPT, timeout).replace("\x1b[6n", "").replace("\r", "")
        return out.split("\n", 1)[1] if "\n" in out else out

    def signal(self, number):
        self.p.send_signal(number)

    def wait(self, timeout=150):
        """Reads to the end; returns the exit code."""
        end = time.monotonic() + timeout
        while self._read(end - time.monotonic()):
            if time.monotonic() > end:
                self.fail(f"the machine did not end within {timeout} s")
        try:
            return self.p.wait(max(1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.fail(f"the console closed, but the machine did not end within {timeout} s")

    def exits(self, code, timeout=150):
        got = self.wait(timeout)
        if got != code:
            self.fail(f"exit code {got} where {code} was due")

    def kill(self):
        if self.p.poll() is None:
            self.p.kill()
        self.p.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
        self.p.stdin.close()
        self.p.stdout.close()
        self.errors.close()


def linux(flavour, append="", *args, modules=(), **kw):
    """Debian's kernel with the tests' initramfs."""
    return Machine("--kernel", kernel(flavour), "--initrd", initrd(flavour, modules),
                   "--append", f"console=ttyS0 {append}".strip(), *args, **kw)


def guest_test(flavour, name, *args, timeout=300, append="quiet", **kw):
    """Boots, runs /tests/NAME, powers off; returns what the script printed."""
    with linux(flavour, f"{append} skep.test={name}", *args, **kw) as m:
        m.expect(f"skep: test {name} begins", timeout)
        out = m.expect(f"skep: test {name} ended with ", timeout)
        code = m.expect("\n", 10).strip()
        m.exits(POWEROFF, 60)
        if code != "0":
            m.fail(f"/tests/{name} ended with {code}")
        return out.replace("\r", "").lstrip("\n")


def command(*argv, timeout=60):
    """Runs skep to its end; returns (exit code, stdout and stderr)."""
    p = subprocess.run([SKEP, *argv], stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout)
    return p.returncode, (p.stdout + p.stderr).decode(errors="replace")


def skep(*argv, code=0, timeout=120):
    """The same, which must end with this code; returns what it printed."""
    got, out = command(*argv, timeout=timeout)
    assert "Sanitizer" not in out and "runtime error" not in out, out[-2000:]
    assert got == code, f"skep {' '.join(argv)} ended with {got} where {code} was due: {out[-600:]}"
    return out


def need_tier(tier):
    """soft.tier=TIER is there, or this test is skipped with what skep says about it."""
    code, out = command("run", "-m", "16M", "-o", f"soft.tier={tier}", "-o", "control=none",
                        "--kernel", "/nonexistent", "tier")
    for line in out.splitlines():
        if "gives no memory for translated code" in line:
            raise Skip(line[6:])
    assert code == ERROR, f"a machine without a kernel ran: {out}"


def has_model(args):
    """Does the host's processor have what this cpu.model needs?  Says so if not."""
    code, out = command("run", "-m", "16M", *args, "-o", "control=none", "--kernel", "/nonexistent", "model")
    assert code == ERROR, f"a machine without a kernel ran: {out}"
    if "this host's processor has no" in out:
        print(f"# {out.strip()}", flush=True)
        return False
    return True


def each_tier(case):
    """The same case for each tier: NAME_interpreter(), NAME_translator(), which call case(tier)."""
    def of(tier):
        def one():
            need_tier(tier)
            case(tier)
        one.__name__ = f"{case.__name__}_{tier}"
        return one
    return [of(tier) for tier in TIERS]


def run(*cases):
    """Calls each case (or those named on the command line) and exits accordingly."""
    wanted = sys.argv[1:]
    failed = 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    # A shell's background job ignores it, and children would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for case in cases:
            name = case.__name__
            if wanted and name not in wanted:
                continue
            begin = time.monotonic()
            try:
                case()
                print(f"ok {name}")
            except Skip as e:
                print(f"skip {name} - {e}")
            except AssertionError as e:
                failed += 1
                traceback.print_exc()
                print(f"not ok {name} - {str(e).splitlines()[0] if str(e) else 'assertion'}")
            except Exception as e:
                failed += 1
                traceback.print_exc()
                print(f"not ok {name} - {type(e).__name__}: {e}")
            print(f"# {name}: {time.monotonic() - begin:.1f} s", flush=True)
    finally:
        if hasattr(scratch, "path"):
            shutil.rmtree(scratch.path, ignore_errors=True)
    sys.exit(1 if failed else 0)
