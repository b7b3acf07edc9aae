"""backend=kvm as people use it: run, save, restore on either backend, what is refused, what the host has."""
import json
import os
import re
import subprocess
import time

import lib

COUNTER = os.path.join(lib.BUILD, "tests/guests/counter")
MODEL = ("-o", "cpu.model=skep-v1.1")


def need_kvm():
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        raise lib.Skip("there is no /dev/kvm, or it may not be opened")
    if not os.path.exists(COUNTER):
        raise lib.Skip("tests/guests/counter is not built")


def skep(*args, ok=True):
    p = subprocess.run([lib.SKEP, *args], capture_output=True, text=True, timeout=60)
    assert (p.returncode == 0) == ok, (args, p.returncode, p.stdout, p.stderr)
    return p


def path(name):
    return os.path.join(lib.scratch(), name)


class Counting:
    """tests/guests/counter with its console in a file."""

    def __init__(self, name, *args):
        self.name, self.console = name, path(name + ".console")
        if os.path.exists(self.console):
            os.unlink(self.console)
        self.errors = open(path(name + ".errors"), "w+")
        self.p = subprocess.Popen([lib.SKEP, *args], stdin=subprocess.DEVNULL,
                                  stdout=self.errors, stderr=self.errors)

    @classmethod
    def run(cls, name, *args, backend="kvm"):
        return cls(name, "run", "-m", "32M", *MODEL, "-o", f"backend={backend}", "-l",
                   f"com1,{path(name + '.console')}", *args, "--kernel", COUNTER, name)

    @classmethod
    def restore(cls, name, file, backend):
        return cls(name, "restore", "-o", f"name={name}", "-o", f"backend={backend}", "-o",
                   f"lpc.com1.path={path(name + '.console')}", file)

    def text(self):
        if not os.path.exists(self.console):
            return ""
        with open(self.console, errors="replace") as f:
            return f.read()

    def rounds(self):
        found = re.findall(r"round (\d+)\n", self.text())
        return int(found[-1]) if found else 0

    def goes_on(self, after=0, more=3):
        """It says rounds beyond `after`, and finds no error in itself."""
        end = time.monotonic() + 40
        while self.rounds() < after + more:
            self.errors.seek(0)
            assert self.p.poll() is None, self.errors.read()
            assert time.monotonic() < end, (after, self.text()[-200:])
            time.sleep(0.02)
        for line in self.text().splitlines()[1:-1]:
            assert re.fullmatch(r"round \d+", line), line
        return self.rounds()

    def end(self):
        if self.p.poll() is None:
            self.p.kill()
        self.p.wait()


def save_and_restore_on_both():
    need_kvm()
    m = Counting.run("k1")
    try:
        at = m.goes_on()
        skep("save", "k1", path("plain.skep"))
        m.goes_on(m.rounds())
        skep("save", "--delta", "k1", path("delta.skep"))
        delta = m.goes_on(m.rounds())
        skep("save", "--compress", "--suspend", "k1", path("small.skep"))
        assert m.p.wait(30) == lib.SUSPENDED
    finally:
        m.end()
    for file in ("plain", "delta", "small"):
        skep("verify", path(file + ".skep"))
        for backend in ("kvm", "soft"):
            r = Counting.restore("k2", path(file + ".skep"), backend)
            try:
                told = r.goes_on(at if file == "plain" else delta - 6 if file == "delta" else delta)
                shown = json.loads(skep("status", "--json", "k2").stdout)
                assert shown["backend"] == backend, shown
                assert told > at
            finally:
                r.end()


def from_soft_to_kvm():
    need_kvm()
    khz = json.loads(skep("check-host", "--json").stdout)["kvm"]["tsc_khz"]
    m = Counting.run("s1", "-o", f"clock.tsc_khz={khz}", backend="soft")
    try:
        m.goes_on()
        skep("save", "--live", "s1", path("soft.skep"))
        at = m.rounds()
    finally:
        m.end()
    r = Counting.restore("s2", path("soft.skep"), "kvm")
    try:
        r.goes_on(at - 2)
        skep("pause", "s2")
        skep("resume", "s2")
        r.goes_on(r.rounds())
        skep("save", "--suspend", "s2", path("again.skep"))
        assert r.p.wait(30) == lib.SUSPENDED
    finally:
        r.end()
    r = Counting.restore("s3", path("again.skep"), "soft")
    try:
        r.goes_on(at)
    finally:
        r.end()


def refusals():
    need_kvm()
    host = json.loads(skep("check-host", "--json").stdout)["kvm"]
    m = Counting.run("r1")
    try:
        m.goes_on()
        p = skep("save", "--live", "r1", path("live.skep"), ok=False)
        assert "--live needs backend=soft" in p.stderr, p.stderr
        assert not os.path.exists(path("live.skep"))
        m.goes_on(m.rounds())
    finally:
        m.end()
    common = ("-m", "32M", "-o", "backend=kvm", "-o", "control=none", "--kernel", COUNTER, "r2")
    p = skep("run", "-o", "clock.mode=virtual", *MODEL, *common, ok=False)
    assert "counts instructions" in p.stderr, p.stderr
    for model, verdict in host["cpu_models"].items():
        if verdict is not True:
            p = skep("run", "-o", f"cpu.model={model}", *common, ok=False)
            assert f"cpu.model={model}: this host's KVM lacks" in p.stderr, p.stderr
    if host["tsc_scaling"]:
        return
    p = skep("run", *MODEL, "-o", "clock.tsc_khz=1234567", *common, ok=False)
    assert "cannot be scaled" in p.stderr, p.stderr
    m = Counting.run("r3", backend="soft")
    try:
        m.goes_on()
        skep("save", "--suspend", "r3", path("ghz.skep"))
    finally:
        m.end()
    p = skep("restore", "-o", "backend=kvm", "-o", "control=none", "-o", "lpc.com1.path=null",
             path("ghz.skep"), ok=False)
    assert "restore with backend=soft" in p.stderr, p.stderr


def check_host():
    first = json.loads(skep("check-host", "--json", "--again").stdout)
    again = json.loads(skep("check-host", "--json").stdout)
    assert first["backend"] in ("kvm", "soft")
    assert first["soft"]["cpu_models"]["skep-v1.1"] is True
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        assert first["backend"] == "soft" and first["kvm"]["why_not"]
        return
    assert first["kvm"]["measured_now"] and not again["kvm"]["measured_now"]
    for key in ("usable", "kernel_kips", "tsc_khz", "why_not", "executes", "cpu_models"):
        assert first["kvm"][key] == again["kvm"][key], key
    assert first["kvm"]["usable"] == (first["backend"] == "kvm")
    # A verdict for another boot, or that was damaged, is none.
    cache = os.path.join(os.environ["SKEP_RUNTIME_DIR"], "kvm-probe")
    for text in ("", "x\n1 999999999 1 1 1\nall\n\n"):
        with open(cache, "w") as f:
            f.write(text)
        anew = json.loads(skep("check-host", "--json").stdout)
        assert anew["kvm"]["measured_now"] and anew["backend"] == first["backend"], text
    assert "CPU models of backend=soft" in skep("check-host").stdout


def without_the_device():
    """As on a host that has none: in a mount namespace of its own, where that is allowed."""
    p = subprocess.run(["unshare", "-m", "sh", "-c", "mount -t tmpfs none /dev && exec \"$0\" check-host",
                        lib.SKEP], capture_output=True, text=True)
    if "skep" not in p.stdout and "KVM" not in p.stdout:
        raise lib.Skip("no mount namespace: " + p.stderr.strip())
    assert "backend=auto takes soft" in p.stdout and "there is no /dev/kvm" in p.stdout, p.stdout


lib.run(check_host, without_the_device, save_and_restore_on_both, from_soft_to_kvm, refusals)
