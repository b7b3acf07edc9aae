"""What other systems shipped, tried on the whole machine; and the table in tests/LESSONS."""
import fcntl
import glob
import hashlib
import json
import os
import re
import subprocess
import time

from control import Client, ready, saved, spin, status, target
from lib import (ERROR, HALT, POWEROFF, PROMPT, REBOOT, SKEP, SUSPENDED, TOP, TRIPLE, Machine, command,
                 freestanding, initrd, kernel, linux, run, scratch, skep)
from looking import Patched


def path(name):
    return os.path.join(scratch(), name)


class Restored(Machine):
    def __init__(self, file, *args, **kw):
        super().__init__(argv=[SKEP, "restore", *args, file], **kw)


def shell(ram="512M", name="e2e", append="quiet"):
    m = linux("cloud", append, ram=ram, name=name)
    m.expect(PROMPT)
    return m


def prompt(m):
    """A restored shell shows nothing by itself."""
    m.send("\n")
    m.expect(PROMPT)
    return m


# ---- Endings ------------------------------------------------------------------

def a_code_for_each_reason():
    """The guest's ending is the process's, also after a restore; no two reasons share a code."""
    for guest, code, more in (("reset_cf9", REBOOT, []), ("halt", HALT, []), ("triple", TRIPLE, []),
                              ("exit", 33, ["-o", "lpc.debug_exit=true"])):
        snap = path("ending.skep")
        skep("run", "-m", "32M", "-l", "com1,null", "-o", "clock.mode=virtual", *more, "--save-at", f"2:{snap}",
             "--kernel", freestanding(guest), "ending", code=code)
        skep("restore", snap, code=code)
    with spin(name="ending") as m:
        skep("save", "--suspend", "ending", snap)
        m.exits(SUSPENDED, 20)
    with Restored(snap) as m:
        ready(m, "ending")
        skep("stop", "--force", "ending")
        m.exits(POWEROFF, 20)
    skep("restore", path("there-is-none"), code=ERROR)
    assert len({REBOOT, POWEROFF, HALT, TRIPLE, ERROR, SUSPENDED}) == 6


def suspend_is_no_reboot():
    """vm-bhyve#453: wrappers start a guest again that ends with 0, as a suspended one did."""
    snap, starts = path("loop.skep"), path("starts")
    script = (f'code=0; while [ $code -eq 0 ]; do echo x >>{starts}; "{SKEP}" run -m 16M -l com1,null '
              f'--kernel {freestanding("spin")} loop; code=$?; done; exit $code')
    p = subprocess.Popen(["/bin/sh", "-c", script], stdin=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 20
        while command("status", "loop")[0]:
            assert time.monotonic() < end, "the machine does not answer"
            time.sleep(0.02)
        skep("save", "--suspend", "loop", snap)
        assert p.wait(20) == SUSPENDED
        with open(starts) as f:
            assert f.read() == "x\n", "it was started again"
    finally:
        p.kill()
        p.wait()


# ---- What a save may not do -----------------------------------------------------

def errors_are_told():
    """A save that fails says so, in its exit code too; the old file stays, and the guest goes on."""
    os.makedirs(path("dir"), exist_ok=True)
    good = path("good.skep")
    if not os.path.lexists(path("link.skep")):
        os.symlink("good.skep", path("link.skep"))
    with spin() as m, Client("web") as c:
        skep("save", "web", good)
        with open(good, "rb") as f:
            before = f.read()
        for file, words in ((path("none/x.skep"), "none"), (path("dir"), "dir"), (path("link.skep"), "link"),
                            ("/dev/full", "/dev/full"), ("", "")):
            said = skep("save", "web", file, code=ERROR)
            assert words in said and len(said) > 10, f"{file}: {said}"
        skep("save", "--generation", "99", "web", good, code=ERROR)
        skep("save", "nobody", good, code=ERROR)
        a = status(c)["guest_ns"]
        time.sleep(0.05)
        assert status(c)["state"] == "running" and status(c)["guest_ns"] > a
        assert m.p.poll() is None
    with open(good, "rb") as f:
        assert f.read() == before, "the old file has changed"
    assert not glob.glob(path("dir/*")) and not glob.glob(path("*.tmp")) and not glob.glob(path(".*skep*"))


def old_file_is_not_truncated():
    """bhyve opened the last good file with O_TRUNC.  Whoever has it open here keeps all of it."""
    snap = path("over.skep")
    with spin(name="over"):
        skep("save", "over", snap)
        with open(snap, "rb") as old:
            first = hashlib.sha256(old.read()).digest()
            inode = os.fstat(old.fileno()).st_ino
            skep("save", "over", snap)
            assert os.stat(snap).st_ino != inode
            old.seek(0)
            assert hashlib.sha256(old.read()).digest() == first
            for suspend in False, True:
                # A client that is killed in the middle: the file in its place is the last whole one.
                p = subprocess.Popen([SKEP, "save", *(["--suspend"] if suspend else []), "over", snap])
                time.sleep(0.002)
                p.kill()
                p.wait()
                skep("verify", "--quiet", snap)


def preflight_names_every_obstacle():
    """All that is in the way is named at once, and nothing has been stopped."""
    with spin() as m, Client("web") as c, Client("web") as other:
        fd = target()
        text = c.call("save", fd, suspend=True, live=True, delta=True, generation=7)["error"]["text"]
        for words in "choose one", "--delta", "generation 7":
            assert words in text, text
        assert os.fstat(fd).st_size == 0
        os.close(fd)
        assert status(other)["state"] == "running" and not status(other)["stopped_for"]
        m.kill()


def dirty_after_an_abort():
    """A save that came to nothing takes no dirty page with it: the delta after it has all of them."""
    base, delta, full = path("dirty-base.skep"), path("dirty-delta.skep"), path("dirty-full.skep")
    m = Machine("--kernel", freestanding("pattern"), ram="64M", name="web")
    with m:
        ready(m, "web")
        skep("save", "web", base)
        for live in False, True:
            time.sleep(0.2)
            with Client("web") as c:
                saved(c, live=live)
                assert c.call("save-abort") == {"return": {}}
            with Client("web") as c:        # one that goes away is an abort, too
                fd = target()
                c.send("save", fd, live=live)
                os.close(fd)
        end = time.monotonic() + 20
        with Client("web") as c:
            while status(c)["state"] != "running":
                assert time.monotonic() < end
                time.sleep(0.01)
        skep("pause", "web")
        skep("save", "--delta", "web", delta)
        skep("save", "web", full)
        assert json.loads(skep("inspect", "--json", delta))["ram_told"] > 1 << 20, "a delta of nothing"
    same_machine(delta, full)


def same_machine(a, b):
    code, out = command("diff", "--ram=bytes", "--json", a, b)
    d = json.loads(out)
    fields = [f for f in d["fields"] if not f["host"]]
    assert not fields and not d["ram_pages"], f"{fields[:5]}, {d['ram_pages']} pages"


def delta_in_two_regions():
    """FC#5705: deltas were wrong with more than one memory slot.  5 GiB, of which 3 lie above 4 GiB."""
    base, first, second, full = (path(f"regions-{n}.skep") for n in ("base", "one", "two", "full"))
    # The kernel and its data lie below 2 GiB then, files above 4.
    with shell("5G", append="quiet nokaslr") as m:
        skep("save", "e2e", base)
        m.command("dd if=/dev/urandom of=/one bs=1M count=8 2>/dev/null")
        sums = m.command("md5sum /one").strip()
        skep("save", "--delta", "--live", "e2e", first)
        m.command("dd if=/dev/urandom of=/two bs=1M count=4 2>/dev/null; rm /one")
        sums_two = m.command("md5sum /two").strip()
        skep("pause", "e2e")
        skep("save", "--delta", "--compress", "e2e", second)
        skep("save", "e2e", full)
        m.kill()
    d = json.loads(skep("diff", "--ram", "--json", base, first, code=1))
    runs = [r["gpa"] for r in d["ram_ranges"]]
    assert min(runs) < 2 << 30 and max(runs) >= 4 << 30, f"pages from {min(runs):#x} to {max(runs):#x}"
    same_machine(second, full)
    with Restored(first) as m:
        assert prompt(m).command("md5sum /one").strip() == sums
    with Restored(second) as m:
        assert prompt(m).command("ls /one /two 2>/dev/null; md5sum /two").split("\n", 1)[1].strip() == sums_two


# ---- The file while the machine runs ----------------------------------------------

def locked_while_it_runs():
    snap = path("locked.skep")
    with spin(name="locked") as m:
        skep("save", "--suspend", "locked", snap)
        m.exits(SUSPENDED, 20)
    with Restored(snap) as m, open(snap, "rb") as f:
        ready(m, "locked")
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            raise AssertionError("nobody holds a lock on it")
        except BlockingIOError:
            pass
    with open(snap, "r+b") as f:
        fcntl.flock(f, fcntl.LOCK_EX)       # and somebody who edits it keeps machines away
        assert "lock" in skep("restore", snap, code=ERROR)


def cut_short_while_it_runs():
    """A file that is truncated under its machine: it ends with a sentence."""
    snap = path("short.skep")
    m = Machine("--kernel", freestanding("pattern"), ram="64M", name="short")
    with m:
        ready(m, "short")
        time.sleep(0.2)
        skep("save", "--suspend", "short", snap)
        m.exits(SUSPENDED, 20)
    with Restored(snap, "--paused") as m:
        ready(m, "short")
        os.truncate(snap, 4096)
        command("resume", "short")  # or it has ended by itself
        m.exits(ERROR, 20)
        said = m.stderr()
        assert "truncated" in said, said


# ---- Early, often, long ago ---------------------------------------------------------

def early_boot():
    """Saved before and in the kernel's first instructions: the same machine a second later."""
    files = {n: path(f"early-{n}.skep") for n in (1, 2, 7, 1000, 123456)}
    args = ["run", "-m", "256M", "-l", "com1,null", "-o", "clock.mode=virtual", "-o", "seed=7", "-o",
            "clock.limit=200000000", "--kernel", kernel("cloud"), "--initrd", initrd("cloud"), "--append",
            "console=ttyS0", "early"]
    saves = sum((["--save-at", f"{n}:{f}"] for n, f in files.items()), [])
    skep(*args[:1], *saves, "--dump-state", path("early"), *args[1:], code=HALT)
    with open(path("early")) as f:
        want = f.read()
    for n, file in files.items():
        skep("restore", "--exact", "-o", "clock.limit=200000000", "--dump-state", path("late"), file, code=HALT)
        with open(path("late")) as f:
            assert f.read() == want, f"saved at {n}: another machine"


def first_instruction_is_told():
    """CH#8744: "restored" is not one number.  --stats has the first instruction's time of its own."""
    snap = path("stats.skep")
    with spin(name="stats") as m:
        skep("save", "--suspend", "stats", snap)
    with Restored(snap, "--stats", path("stats")) as m:
        ready(m, "stats")
        skep("stop", "--force", "stats")
        m.exits(POWEROFF, 20)
    with open(path("stats")) as f:
        s = json.load(f)
    assert 0 < s["first_insn_us"] < 1e6, s


CHAOS = ("awk 'BEGIN { x = 0.3; for (i = 0; i < 50000; i++) x = 3.9 * x * (1 - x); "
         "printf \"chaos %.17g .\\n\", x }'")


def chaos():
    x = 0.3
    for _ in range(50000):
        x = 3.9 * x * (1 - x)
    return f"{x:.17g}"


def fpu_goes_on():
    """bhyve saved no FPU state at all.  A computation that one wrong bit would send elsewhere."""
    snap, result = path("fpu.skep"), re.compile(rb"chaos ([0-9.e+-]+) \.")
    with shell("256M") as m:
        m.send(f"for i in 1 2 3; do {CHAOS}; done\n")
        m.expect("\n", 10)
        skep("save", "--suspend", "e2e", snap)
        m.exits(SUSPENDED, 20)
        text = m.text
    for _ in range(6):
        if len(result.findall(text)) == 3:
            break
        with Restored(snap) as m:
            time.sleep(0.2)
            skep("save", "--suspend", "e2e", snap)
            m.exits(SUSPENDED, 20)
            text += m.text
    with Restored(snap) as m:
        end = time.monotonic() + 90
        while len(result.findall(text + m.text)) < 3:
            assert time.monotonic() < end and m._read(1), "the results do not come"
        text += m.text
    assert result.findall(text) == [chaos().encode()] * 3, (result.findall(text), chaos())


CLOCKS = ("read up rest </proc/uptime; read rtc </sys/class/rtc/rtc0/since_epoch; "
          "date +\"clocks %s $up $rtc .\"")


def clocks(m):
    """The wall clock, the uptime and the CMOS clock, in seconds."""
    out = prompt(m).command(CLOCKS)
    return [float(x) for x in re.search(r"clocks ([0-9.]+) ([0-9.]+) ([0-9]+) \.", out).groups()]


def clocks_after_ten_days():
    """Every clock in the guest, under each policy, after a gap that nobody has to wait for."""
    snap, gap = path("gap.skep"), 10 * 86400
    with shell("256M") as m:
        before = clocks(m)
        skep("save", "--suspend", "e2e", snap)
        m.exits(SUSPENDED, 20)
    def old(then):
        p = Patched(snap, "gap-old.skep")
        i = p.notes.index(b"lhost_wall_ns\x1b") + 14
        now = int.from_bytes(p.notes[i:i + 8], "big")
        p.notes[i:i + 8] = (now - then * 10**9).to_bytes(8, "big")
        return p.write()
    for policy, then, moved in (("continue", gap, 0), ("advance", gap, gap), ("advance", -gap, 0)):
        with Restored(old(then), f"--time={policy}") as m:
            after = clocks(m)
            for name, a, b in zip(("wall clock", "uptime", "CMOS clock"), before, after):
                assert moved - 1 <= b - a <= moved + 30, \
                    f"--time={policy}, {then / 86400:.0f} days: the {name} went on by {b - a:.1f} s"
            assert abs((after[0] - before[0]) - (after[1] - before[1])) < 1.5, "two clocks disagree"
            if then < 0:
                assert "behind" in m.stderr(), m.stderr()


# ---- The table ------------------------------------------------------------------------

def _tests():
    """Every test that the tree has, as file.test."""
    names = set()
    for file in glob.glob(os.path.join(TOP, "tests", "test_*.c")):
        with open(file) as f:
            text = f.read()
        for name in re.findall(r"^static void (\w+)\(void \*\*\w+\)", text, re.M):
            used = len(re.findall(rf"\b{name}\b", text))
            if used > 1:
                names.add(f"{os.path.basename(file)[:-2]}.{name}")
    for file in glob.glob(os.path.join(TOP, "tests", "e2e", "*.py")):
        with open(file) as f:
            text = f.read()
        listed = text[max(text.rfind(f"\n{call}(") for call in ("run", "lib.run", "    run")):]
        for name in re.findall(r"^def (\w+)\(\)", text, re.M):
            if re.search(rf"\b{name}\b", listed):
                names.add(f"{os.path.basename(file)[:-3]}.{name}")
        if file.endswith("golden.py"):
            with open(os.path.join(TOP, "tests", "golden", "golden.json")) as g:
                names |= {f"golden.{n}" for n in json.load(g)}
    return names


def table():
    """Each lesson has a test that exists and runs, or says why it has none yet."""
    with open(os.path.join(TOP, "tests", "LESSONS")) as f:
        blocks = [b for b in re.split(r"\n\n+", f.read()) if b.startswith("- ")]
    assert len(blocks) > 30, f"{len(blocks)} lessons"
    known = _tests()
    for b in blocks:
        rows = b.split("\n")
        proofs = [r.strip()[3:] for r in rows if r.startswith("    by ")]
        later = [r for r in rows if r.startswith("    not yet: ")]
        assert proofs or later, f"neither a test nor a reason: {rows[0]}"
        for name in " ".join(proofs).replace(",", " ").split():
            assert name in known, f"{rows[0]}: there is no test {name}"


if __name__ == "__main__":
    run(table, a_code_for_each_reason, suspend_is_no_reboot, errors_are_told, old_file_is_not_truncated,
        preflight_names_every_obstacle, dirty_after_an_abort, delta_in_two_regions, locked_while_it_runs,
        cut_short_while_it_runs, early_boot, first_instruction_is_told, fpu_goes_on, clocks_after_ten_days)
