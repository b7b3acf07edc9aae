#!/usr/bin/python3
"""Saves while the machine resets, ends, is paused, is stopped, and while clients come and go.

Whatever happens: nothing hangs, the machine's process ends when it should, a file that was there is
whole (the old one or the new one), and nothing else is left beside it.
"""
import os
import re
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from control import Client, status, target
from lib import (ERROR, HALT, POWEROFF, REBOOT, SKEP, SUSPENDED, TRIPLE, Machine, command, freestanding,
                 run, scratch)

MODES = {
    "plain": [], "live": ["--live"], "compressed": ["--compress"], "delta": ["--delta"],
    "live-delta": ["--live", "--delta"], "slow": ["--live", "--compress=19"],
    "standing": ["--compress=19"], "suspend": ["--suspend", "--compress=12"],
}


class Saves:
    """A directory for snapshots, and a machine called web."""

    def __init__(self, *args, ram="64M"):
        self.dir = os.path.join(scratch(), "saves")
        os.makedirs(self.dir, exist_ok=True)
        for f in os.listdir(self.dir):
            os.unlink(os.path.join(self.dir, f))
        self.file = os.path.join(self.dir, "web.skep")
        self.machine = Machine("--kernel", freestanding("obey"), *args, ram=ram, name="web")
        self.machine.expect("br", 20)

    def base(self):
        """An old file, and what a delta is based on."""
        self.skep("save", "--no-sync", "web", self.path("base.skep"))
        with open(self.file, "wb") as f:
            f.write(b"old")

    def path(self, name):
        return os.path.join(self.dir, name)

    def skep(self, *argv, timeout=60):
        code, out = command(*argv, timeout=timeout)
        assert code == 0, f"skep {' '.join(argv)} ended with {code}: {out[-600:]}"
        return out

    def begin(self, *flags):
        return subprocess.Popen([SKEP, "save", "--no-sync", *flags, "web", self.file],
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def end(self, save, timeout=30):
        """The save's code and text; the file is judged."""
        try:
            out = save.communicate(timeout=timeout)[0]
        except subprocess.TimeoutExpired:
            save.kill()
            self.machine.fail("the save hangs")
        left = sorted(f for f in os.listdir(self.dir) if f not in ("web.skep", "base.skep"))
        assert not left, f"left behind: {left}"
        if save.returncode == 0:
            self.skep("verify", self.file)
        else:
            with open(self.file, "rb") as f:
                assert f.read() == b"old", f"the old file is lost: {out}"
        return save.returncode, out

    def under_way(self, save, timeout=20):
        """Until RAM is being written; False: the save was faster, and maybe the machine's end."""
        stop = time.monotonic() + timeout
        try:
            with Client("web") as c:
                while save.poll() is None and time.monotonic() < stop:
                    s = status(c)["save"]
                    if s and s["done"]:
                        return True
        except (FileNotFoundError, ConnectionError, EOFError):
            pass
        return False

    def ends(self, code, timeout=20):
        self.machine.exits(code, timeout)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.machine.__exit__()


# ---- The guest does something -----------------------------------------------

def guest_ends(letter, code, *args):
    """In every mode, once as the save begins, and once in the middle of it."""
    for mode, flags in MODES.items():
        for late in False, True:
            with Saves(*args) as s:
                s.base()
                if not late:
                    s.machine.send(letter)
                save = s.begin(*flags)
                if late:
                    s.under_way(save)
                    s.machine.send(letter)
                got, out = s.end(save)
                if got == 0 and mode == "suspend":
                    # It had been saved before it saw the letter.
                    s.ends(SUSPENDED)
                    continue
                assert got == 0 or "ended" in out or "no machine" in out, (mode, late, out)
                s.ends(code)


def guest_powers_off():
    guest_ends(b"p", POWEROFF)


def guest_halts():
    guest_ends(b"h", HALT)


def guest_takes_a_triple_fault():
    guest_ends(b"t", TRIPLE)


def guest_resets_and_ends():
    guest_ends(b"r", REBOOT)


def guest_restarts():
    """on_reboot=restart: the save is of one machine, before or after; both go on."""
    for letter, args in (b"r", []), (b"t", ["-o", "x86.triple_fault=reset"]):
        for mode, flags in MODES.items():
            with Saves("-o", "on_reboot=restart", *args) as s:
                s.base()
                save = s.begin(*flags)
                if mode in ("slow", "standing", "suspend"):
                    s.under_way(save)
                s.machine.send(letter)
                got, out = s.end(save)
                assert got == 0, (mode, out)
                if mode == "suspend":
                    s.ends(SUSPENDED)
                else:
                    s.machine.expect("br", 20)
                    s.machine.send(b"x")
                    s.machine.expect("x", 20)
                s.machine.kill()
                answers(s.file)


def answers(file):
    """A restored machine does what it is told; it may be about to reset, and its port with it."""
    with Machine(argv=[SKEP, "restore", file]) as m:
        end = time.monotonic() + 20
        while b"x" not in m.text:
            assert time.monotonic() < end and m.p.poll() is None, (m.text, m.stderr())
            m.send(b"x")
            m._read(0.2)


def restarts_for_ever():
    """A guest that does nothing but reset is saved in every mode, and resets on."""
    with Saves("-o", "on_reboot=restart") as s:
        s.base()
        stop = threading.Event()

        def reset():
            while not stop.is_set():
                try:
                    s.machine.send(b"r")
                except BrokenPipeError:
                    return
                time.sleep(0.02)

        t = threading.Thread(target=reset)
        t.start()
        try:
            for i in range(5):
                for mode in "plain", "live", "delta", "live-delta":
                    file = s.path(f"{mode}.skep")
                    s.skep("save", "--no-sync", *MODES[mode], "web", file)
                    s.skep("verify", file)
        finally:
            stop.set()
            t.join()
        assert s.machine.p.poll() is None
        s.machine.kill()


# ---- The user does something ------------------------------------------------

def stopped_in_the_middle():
    """skep stop --force, SIGQUIT, SIGTERM twice: the save fails, the machine ends, soon."""
    def stop(m):
        code, out = command("stop", "--force", "web")
        assert code == 0 or "no machine" in out or "ended" in out, out

    def quit(m):
        m.signal(signal.SIGQUIT)

    def twice(m):
        m.signal(signal.SIGTERM)
        # Two that are pending are one: on a busy host it may take a while.
        while m.p.poll() is None:
            with open(f"/proc/{m.p.pid}/status") as f:
                if not int(re.search(r"ShdPnd:\s*(\w+)", f.read())[1], 16) >> signal.SIGTERM - 1 & 1:
                    break
            time.sleep(0.01)
        m.signal(signal.SIGTERM)

    for mode in "slow", "standing", "suspend", "plain", "live":
        for how in stop, quit, twice:
            with Saves() as s:
                s.base()
                save = s.begin(*MODES[mode])
                s.under_way(save)
                begin = time.monotonic()
                how(s.machine)
                got, out = s.end(save)
                assert got == 0 or "ended" in out, (mode, out)
                # Who came first says why it ended; the file that was complete by then is put in its place.
                code = s.machine.wait(20)
                assert code == POWEROFF or (got == 0 and mode == "suspend" and code == SUSPENDED), code
                assert time.monotonic() - begin < 5, (mode, how.__name__)


def killed_in_the_middle():
    """SIGKILL to the machine, or to the client."""
    for mode in "slow", "standing", "suspend", "plain":
        with Saves() as s:
            s.base()
            save = s.begin(*MODES[mode])
            s.under_way(save)
            s.machine.kill()
            got, out = s.end(save)
            assert got == 0 or "ended" in out, (mode, out)
        with Saves() as s:
            s.base()
            save = s.begin(*MODES[mode])
            under = s.under_way(save)
            save.kill()
            if under:
                s.end(save)
                with Client("web") as c:
                    stop = time.monotonic() + 10
                    while status(c)["state"] != "running":
                        assert time.monotonic() < stop, status(c)
                        time.sleep(0.01)
                s.machine.send(b"x")
                s.machine.expect("x", 10)
                s.skep("save", "--no-sync", "web", s.file)


def paused_and_resumed():
    """pause and resume, in the middle of a save and around it."""
    for mode in "slow", "standing", "live-delta":
        with Saves() as s, Client("web") as c:
            s.base()
            save = s.begin(*MODES[mode])
            s.under_way(save)
            for _ in range(20):
                assert "return" in c.call("pause")
                assert "return" in c.call("resume")
            c.call("pause")
            got, out = s.end(save)
            assert got == 0, out
            assert status(c)["state"] == "paused", status(c)
            ns = status(c)["guest_ns"]
            s.skep("save", "--no-sync", "web", s.file)
            assert status(c)["state"] == "paused" and status(c)["guest_ns"] == ns
            c.call("resume")
            s.machine.send(b"x")
            s.machine.expect("x", 10)


def power_button():
    """Pressed while a save has the machine stand, and while the user has."""
    for how in "stop", "signal":
        with Saves() as s, Client("web") as c:
            s.base()
            for pause in False, True:
                if pause:
                    c.call("pause")
                save = s.begin(*MODES["standing"])
                s.under_way(save)
                if how == "stop":
                    s.skep("stop", "web")
                else:
                    s.machine.signal(signal.SIGTERM)
                got, out = s.end(save)
                assert got == 0, out
                c.call("resume")
                with open(s.file, "wb") as f:
                    f.write(b"old")
                if how == "signal":
                    break       # another one would end it at once
            # This guest does not listen: PWRBTN_STS says that it came.
            assert s.machine.p.poll() is None


def several_clients():
    """Saves from several clients at once: one at a time, the others are told; none disturbs another."""
    with Saves() as s:
        s.base()
        save = s.begin(*MODES["slow"])
        s.under_way(save)
        code, out = command("save", "--no-sync", "web", s.path("other.skep"))
        assert code == ERROR and "saved already" in out, out
        with Client("web") as c:
            assert c.call("save-abort")["error"]["errno"] == "EPERM"
        got, out = s.end(save)
        assert got == 0, out
        many = [subprocess.Popen([SKEP, "save", "--no-sync", "web", s.path(f"{i}.skep")],
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
                for i in range(8)]
        outs = [p.communicate(timeout=60)[0] for p in many]
        for i, p in enumerate(many):
            assert os.path.exists(s.path(f"{i}.skep")) == (p.returncode == 0), outs[i]
            assert p.returncode == 0 or "saved already" in outs[i], outs[i]
        assert any(p.returncode == 0 for p in many)
        for p in many:
            p.stdout.close()


# ---- Between written and commit -----------------------------------------------

def written(c, **arguments):
    fd = target()
    r = c.call("save", fd, **arguments)
    os.close(fd)
    assert "return" in r, r


def ends_before_commit():
    """The machine ends while its client has not said commit yet: it may, for a moment."""
    for live in False, True:
        for letter, code in (b"p", POWEROFF), (None, POWEROFF):
            with Saves() as s, Client("web") as c:
                written(c, live=live)
                if letter and live:
                    s.machine.send(letter)
                else:
                    s.skep("stop", "--force", "web")
                time.sleep(0.3)
                assert c.call("save-commit") == {"return": {}}
                s.ends(code, 10)
    with Saves() as s, Client("web") as c:
        written(c, suspend=True)
        s.skep("stop", "--force", "web")
        time.sleep(0.3)
        assert c.call("save-abort") == {"return": {}}
        s.ends(POWEROFF, 10)


# ---- Points, and machines that stand ------------------------------------------------

def points_and_clients():
    """--save-at beside clients who save all the time: each point is saved, exactly there."""
    at = [20_000_000 * (i + 1) for i in range(8)]
    points = [x for n in at for x in ("--save-at", f"{n}:{os.path.join(scratch(), f'at-{n}.skep')}")]
    m = Machine("--kernel", freestanding("obey"), "-o", "clock.mode=virtual", "-o",
                "clock.limit=200000000", *points, ram="64M", name="web")
    with m:
        saves = 0
        while m.p.poll() is None:
            code, out = command("save", "--no-sync", "--live", "web", os.path.join(scratch(), "x.skep"))
            saves += code == 0
            assert code == 0 or "saved already" in out or "ended" in out or "no machine" in out, out
        m.exits(HALT, 20)
    assert saves, "no client could save"
    for n in at:
        code, out = command("inspect", "--json", os.path.join(scratch(), f"at-{n}.skep"))
        got = re.search(r'"insns": "?(\d+)', out)
        assert code == 0 and got and int(got[1]) == n, f"{n}: {got and got[1]}"


def restored_paused():
    """--paused stands until resume; a machine that the user had paused does not, without it."""
    with Saves() as s:
        s.skep("pause", "web")
        s.skep("save", "--suspend", "web", s.file)
        s.ends(SUSPENDED)
        answers(s.file)
        with Machine(argv=[SKEP, "restore", "--paused", s.file]) as m:
            wait_for(m)
            with Client("web") as c:
                a = status(c)
                assert a["state"] == "paused" and a["stopped_for"] == ["user"], a
                m.send(b"x")
                s.skep("save", "web", s.path("again.skep"))
                time.sleep(0.3)
                b = status(c)
                assert b["state"] == "paused" and b["guest_ns"] == a["guest_ns"], b
                assert not m.text
                c.call("resume")
                m.expect("x", 10)
                assert status(c)["state"] == "running"
        with Machine(argv=[SKEP, "restore", "--paused", s.file]) as m:
            wait_for(m)
            s.skep("stop", "--force", "web")
            m.exits(POWEROFF, 10)
        code, out = command("restore", "--paused", "-o", "control=none", s.file)
        assert code == ERROR and "--paused" in out, out


def wait_for(m):
    end = time.monotonic() + 20
    while command("status", "web")[0]:
        assert time.monotonic() < end and m.p.poll() is None, m.stderr()
        time.sleep(0.02)


if __name__ == "__main__":
    run(guest_restarts, guest_powers_off, guest_halts, guest_takes_a_triple_fault, guest_resets_and_ends,
        restarts_for_ever, stopped_in_the_middle, killed_in_the_middle, paused_and_resumed, power_button,
        several_clients, ends_before_commit, points_and_clients, restored_paused)
