"""A full disk, a limit on file sizes, and a snapshot that is taken away from under its machine."""
import ctypes
import os
import shutil
import subprocess
import time

from lib import ERROR, SKEP, Machine, Skip, command, freestanding, run, scratch, skep

CLONE_NEWNS = 0x20000
MODES = [[], ["--live"], ["--compress"], ["--suspend"]]
MiB = 1 << 20


def path(name):
    return os.path.join(scratch(), name)


def refused(words, *argv):
    """The command ends with 4 and a sentence that has these words in it."""
    code, out = command(*argv)
    assert code == ERROR, f"skep {' '.join(argv)} ended with {code}: {out}"
    lines = [line for line in out.splitlines() if line.strip()]
    assert len(lines) == 1 and all(w in lines[0] for w in words), f"{words} in {out!r}"


def rounds():
    with open(path("console"), "rb") as f:
        text = f.read()
    assert b"!" not in text, "the guest found its memory changed"
    return text.count(b"\n")


def goes_on(m, timeout=60):
    end = time.monotonic() + timeout
    was = rounds() if os.path.exists(path("console")) else 0
    while not os.path.exists(path("console")) or rounds() - was < 2:
        if m.p.poll() is not None or time.monotonic() > end:
            m.fail(f"the guest does not go on ({m.p.poll()})")
        time.sleep(0.002)


def fresh_console():
    if os.path.exists(path("console")):
        os.unlink(path("console"))


def guest(limit=None):
    """The guest that checks its 16 MiB all the time; limit: no file of its process grows beyond."""
    fresh_console()
    argv = [SKEP, "run", "-c", "1", "-m", "32M", "-s", "0,hostbridge", "-s", "31,lpc",
            "-l", f"com1,{path('console')}", "--kernel", freestanding("notices"), "e2e"]
    if limit:
        argv = ["prlimit", f"--fsize={limit}:", *argv]
    m = Machine(argv=argv)
    goes_on(m)
    return m


def restored(name, *args):
    fresh_console()
    m = Machine(argv=[SKEP, "restore", "-o", f"lpc.com1.path={path('console')}", *args, path(name)])
    goes_on(m)
    return m


# ---- No room ---------------------------------------------------------------

def mount_small(where, size):
    """A tmpfs that only this process and its children see."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS):
        raise Skip(f"a mount namespace of its own: {os.strerror(ctypes.get_errno())}")
    os.makedirs(where)
    for argv in (["mount", "--make-rprivate", "/"],
                 ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", where]):
        p = subprocess.run(argv, capture_output=True, text=True)
        if p.returncode:
            raise Skip(f"to mount a tmpfs: {p.stderr.strip()}")


def free(where):
    st = os.statvfs(where)
    return st.f_bavail * st.f_frsize


def settled(where):
    """The machine closes what it gave up a moment after it has told."""
    last = -1
    while last != free(where):
        last = free(where)
        time.sleep(0.05)
    return last


def fill(where, leave):
    """Leaves so many bytes."""
    with open(os.path.join(where, "filler"), "wb") as f:
        while free(where) > leave:
            f.write(bytes(min(MiB, free(where) - leave)))
            f.flush()


def disk_full():
    """The disk is full at once, in the middle, and at the very end: of RAM, of the notes."""
    where = path("small")
    mount_small(where, "64M")
    target = os.path.join(where, "target")
    with guest() as m:
        goes_on(m)
        before = free(where)
        skep("save", "e2e", target)
        need = before - free(where)
        was, kept = os.stat(target), os.path.join(scratch(), "kept")
        shutil.copy(target, kept)
        points = [0, MiB, 9 * MiB, need - 64 * 1024, need - 8192]
        for leave in points:
            fill(where, leave)
            for flags in MODES:
                # A little smaller, it may have room enough.
                if flags == ["--compress"] and need - leave < MiB:
                    continue
                left = settled(where)
                refused(["No space left on device", "make room"], "save", *flags, "e2e", target)
                assert os.stat(target).st_ino == was.st_ino, "the old file is gone"
                assert sorted(os.listdir(where)) == ["filler", "target"], os.listdir(where)
                assert settled(where) == left, "the file that was given up keeps its space"
                goes_on(m)
            os.unlink(os.path.join(where, "filler"))
        assert not subprocess.run(["cmp", kept, target]).returncode, "the old file has changed"
        skep("verify", target)
        # There is room again, and nothing was forgotten of what is dirty.
        delta = os.path.join(where, "delta")
        skep("save", "--delta", "e2e", delta)
        skep("verify", delta)
        skep("save", "e2e", target)
        skep("verify", target)
        goes_on(m)
    with restored(target) as m:
        goes_on(m)
    print(f"# a snapshot of {need >> 10} KiB, with room for "
          f"{', '.join(str(p >> 10) for p in points)} KiB, in {len(MODES)} modes", flush=True)


def file_size_limit():
    """ulimit -f of the machine's process, which writes the file: it is told, not killed."""
    target = path("limited")
    for limit in 2 * MiB + 4096, 9 * MiB:
        if os.path.exists(target):
            os.unlink(target)
        shutil.copy("/etc/passwd", target)
        with guest(limit=limit) as m:
            for flags in MODES:
                refused(["File too large", "ulimit -f"], "save", *flags, "e2e", target)
                with open(target, "rb") as f, open("/etc/passwd", "rb") as g:
                    assert f.read() == g.read(), "the old file has changed"
                goes_on(m)
            subprocess.run(["prlimit", f"--pid={m.p.pid}", "--fsize=unlimited:"], check=True)
            skep("save", "e2e", target)
            goes_on(m)
        skep("verify", target)


# ---- The file that a machine runs from --------------------------------------

def make_base():
    if os.path.exists(path("base")):
        shutil.copy(path("base"), path("victim"))
        return
    with guest() as m:
        skep("save", "e2e", path("base"))
        skep("save", "--compress", "e2e", path("compressed"))
    make_base()


def ends_with_sentence(m, words, timeout=20):
    code = m.wait(timeout)
    text = m.stderr()
    assert code == ERROR, f"exit code {code}: {text}"
    assert all(w in text for w in words), f"{words} in {text!r}"


def truncated_file():
    """The machine ends with a sentence, whatever it does at that moment."""
    for size in 0, 4096, 6 * MiB:
        make_base()
        with restored("victim") as m:
            os.truncate(path("victim"), size)
            ends_with_sentence(m, ["snapshot file", "whole copy"])


def truncated_while_it_stands():
    """What is lost is not saved as zeroes, and the old file stays."""
    for flags in MODES + [["--delta"]]:
        make_base()
        shutil.copy(path("base"), path("old"))
        was = os.stat(path("old"))
        with restored("victim") as m:
            skep("pause", "e2e")
            os.truncate(path("victim"), 4 * MiB)
            code, out = command("save", *flags, "e2e", path("old"))
            assert code == ERROR and out.startswith("skep: "), f"{code}: {out}"
            assert os.stat(path("old")).st_ino == was.st_ino, "the old file was replaced"
            skep("verify", path("old"))
            command("resume", "e2e")
            ends_with_sentence(m, ["snapshot file", "whole copy"])
        assert not [n for n in os.listdir(scratch()) if n.startswith(".skep-")]


def removed_file():
    """A name is not the file: the machine goes on, is saved, and that is whole."""
    make_base()
    with restored("victim") as m:
        os.unlink(path("victim"))
        goes_on(m)
        refused(["No such file", "save without --delta"], "save", "--delta", "e2e", path("d1"))
        skep("save", "--live", "e2e", path("after"))
        skep("save", "e2e", path("victim"))
        skep("save", "--delta", "e2e", path("d1"))
        goes_on(m)
    for name in "after", "victim", "d1":
        skep("verify", path(name))
    with restored("d1") as m:
        goes_on(m)


def replaced_file():
    """Saved over, by itself and by others, by renaming: what it runs from stays."""
    make_base()
    with restored("victim") as m:
        skep("save", "e2e", path("victim"))
        goes_on(m)
        shutil.copy(path("base"), path("other"))
        os.rename(path("other"), path("victim"))
        goes_on(m)
        refused(["another snapshot", "save without --delta"], "save", "--delta", "e2e", path("d2"))
        skep("save", "e2e", path("victim"))
        goes_on(m)
    skep("verify", path("victim"))


def overwritten_file():
    """Written over in place, and as long as before: nothing of it may be taken for RAM."""
    for stands in False, True:
        make_base()
        with restored("victim") as m:
            if stands:
                skep("pause", "e2e")
            with open(path("victim"), "r+b") as f:
                f.seek(4 * MiB)
                f.write(os.urandom(4 * MiB))
            if stands:
                code, out = command("save", "e2e", path("after-write"))
                assert code == ERROR and not os.path.exists(path("after-write")), f"{code}: {out}"
            ends_with_sentence(m, ["snapshot file", "whole copy"])


def copied_over_file():
    """As cp does it: cut to nothing, and written again, while the machine stands."""
    make_base()
    with restored("victim") as m:
        skep("pause", "e2e")
        shutil.copyfile(path("base"), path("victim"))
        command("resume", "e2e")
        ends_with_sentence(m, ["snapshot file", "whole copy"])


def damaged_chunk():
    """Compressed, or checked: what is read later is verified, and its damage ends the machine."""
    for name, args in ("compressed", []), ("base", ["--check=ram"]):
        make_base()
        shutil.copy(path(name), path("victim"))
        size = os.stat(path("victim")).st_size
        fresh_console()
        m = Machine(argv=[SKEP, "restore", "--paused", "-o", f"lpc.com1.path={path('console')}", *args,
                          path("victim")])
        with m:
            end = time.monotonic() + 20
            while command("status", "e2e")[0] and time.monotonic() < end:
                time.sleep(0.01)
            with open(path("victim"), "r+b") as f:
                for at in range(2 * MiB + 8192, size - 256 * 1024, 4096):
                    f.seek(at)
                    f.write(b"damage")
            command("resume", "e2e")
            ends_with_sentence(m, ["victim", "damaged"])


if __name__ == "__main__":
    run(disk_full, file_size_limit, truncated_file, truncated_while_it_stands, removed_file,
        replaced_file, overwritten_file, copied_over_file, damaged_chunk)
