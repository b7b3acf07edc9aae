"""Golden snapshots (tests/golden): each goes on as it did when it was made, or is refused as a draft."""
import gzip
import hashlib
import json
import os
import re
import shutil
import time

from lib import ERROR, POWEROFF, SKEP, TOP, Machine, Skip, command, run, scratch
from looking import Patched

GOLDEN = os.path.join(TOP, "tests", "golden")
CHANGED = "the snapshot is of a draft of generation 1, which has changed since"
REMAPPED = ["-o", "control=none"]


def table():
    with open(os.path.join(GOLDEN, "golden.json")) as f:
        return json.load(f)


def path(name):
    return os.path.join(scratch(), name)


def files():
    """Copies, the plain one unpacked: a parent lies beside its child."""
    if not os.path.exists(path("golden")):
        os.mkdir(path("golden"))
        for name in os.listdir(GOLDEN):
            source = os.path.join(GOLDEN, name)
            if name.endswith(".skep"):
                shutil.copy(source, path(f"golden/{name}"))
            elif name.endswith(".skep.gz"):
                with gzip.open(source) as f, open(path(f"golden/{name[:-3]}"), "wb") as g:
                    g.write(f.read())
    return path("golden")


def schema():
    code, out = command("profile", "show")
    assert code == 0, out
    return hashlib.sha256(out.encode()).hexdigest()


def refused_as_draft(name, code, out, recorded):
    """True if it was refused by naming the draft, which is right once the draft has changed."""
    if code != ERROR or CHANGED not in out:
        return False
    assert schema() != recorded["schema"], f"{name}: nothing has changed, and yet: {out}"
    print(f"# {name}: refused by naming the draft; tests/golden/make makes it again: {out.strip()}", flush=True)
    return True


def state(text):
    return dict(line.split(" = ", 1) for line in text.splitlines() if " = " in line)


def same_state(name, want, got):
    """Every field that both know is the same, and that is nearly all of them."""
    both = want.keys() & got.keys()
    assert len(both) > 0.9 * len(want), f"{name}: only {len(both)} of {len(want)} fields are still there"
    other = [f"{k}: {want[k]}, now {got[k]}" for k in sorted(both) if want[k] != got[k]]
    assert not other, f"{name}: another state at the end: {'; '.join(other[:5])}"
    if want.keys() != got.keys():
        print(f"# {name}: fields that came or went: {sorted(want.keys() ^ got.keys())[:8]}", flush=True)


def goes_on(name, *flags):
    recorded = table()[name]
    file, end = os.path.join(files(), f"{name}.skep"), path("end")
    code, out = command("restore", *REMAPPED, *flags, "--dump-state", end, file)
    out = out.replace("\r", "")
    if refused_as_draft(name, code, out, recorded):
        return
    if code == ERROR and "this host's processor has no" in out:
        raise Skip(out.strip())
    assert code == recorded["code"], f"{name}: exit code {code}, not {recorded['code']}: {out[-600:]}"
    assert out == recorded["console"], f"{name}: another console: {out[-600:]!r}"
    with gzip.open(os.path.join(GOLDEN, f"{name}.state.gz"), "rt") as f, open(end) as g:
        same_state(name, state(f.read()), state(g.read()))
    code, out = command("verify", file)
    assert code == 0, f"{name}: it restores, and verify says {out}"


def golden(name):
    def case():
        goes_on(name, "--exact")
        goes_on(name, "--exact", "--check=ram")
    case.__name__ = name
    return case


TICK = re.compile(r"tick (\d+): up ([0-9.]+) s, ([0-9-]+ [0-9:]+), 64 KiB checked (\d+) times, (\d+) errors")


def demo():
    """The guest in real time counts on; what its clock says is what was asked for."""
    recorded = table()["demo"]
    for policy in "continue", "advance":
        with Machine(argv=[SKEP, "restore", *REMAPPED, f"--time={policy}",
                           os.path.join(files(), "demo.skep")]) as m:
            code = m.wait(60)
            if refused_as_draft("demo", code, m.stderr(), recorded):
                return
            ticks = TICK.findall(m.text.decode())
            assert code == recorded["code"] == POWEROFF, f"exit code {code}: {m.stderr()}"
        assert [t[0] for t in ticks] == ["3", "4", "5"] and all(t[4] == "0" for t in ticks), ticks
        up, wall = float(ticks[0][1]), time.strptime(ticks[-1][2], "%Y-%m-%d %H:%M:%S")
        behind = time.time() - time.mktime(wall) + time.timezone
        if policy == "advance":
            assert -2 < behind < 30, f"the clock is {behind:.0f} s behind after --time=advance"
        else:
            assert 2.5 < up < 3.5, f"{up} s of uptime at tick 3"


def fabricated():
    """What a later draft would do to these files, done to one of them: refused by naming the draft."""
    name = os.path.join(files(), "interrupt.skep")
    code, out = command("verify", name)
    if code:
        assert CHANGED in out, out
        print("# interrupt.skep itself is refused by naming the draft", flush=True)
        return
    other_draft = {
        "a key of a record": (b"gpm1_cnt", b"gpm1_cnu", "acpi-pm: \"pm1_cnt\" is missing"),
        "a key of a part": (b"iread_high", b"iread_hihg", "i8254.channel[0]: "),
        "a record": (b"gacpi-pm", b"gacpi-pn", "acpi-pn"),
        "a key of the manifest": (b"ginsn_ps", b"ginsn_pt", "manifest"),
        "a setting": (b"x86.triple_fault", b"x86.triple_faulx", "x86.triple_faulx"),
        "a type": (b"gpm1_cnt\x01", b"gpm1_cnt\xf5", "acpi-pm.pm1_cnt: it is a boolean"),
    }
    for what, (old, new, words) in other_draft.items():
        p = Patched(name, "other.skep").replace(old, new)
        p.write()
        code, out = command("restore", *REMAPPED, p.path)
        assert code == ERROR and CHANGED in out and words in out, f"{what}: {code} {out}"
        code, out = command("verify", p.path)
        assert code == 1 and CHANGED in out, f"{what}, verify: {code} {out}"
        # The same in a file that is of no draft, and damage in one that is, are something else.
        p.replace(b"edraft\xf5", b"edraft\xf4").write()
        code, out = command("restore", *REMAPPED, p.path)
        assert code == ERROR and CHANGED not in out and words in out, f"{what}: {code} {out}"
    p = Patched(name, "other.skep").replace(b"fhalted\x00", b"fhalted\x02").write()
    code, out = command("restore", *REMAPPED, p)
    assert code == ERROR and "cpu.0.halted" in out and CHANGED not in out, f"a value: {code} {out}"


def complete():
    """Every file is described, and every description has its file."""
    names = {n.split(".")[0] for n in os.listdir(GOLDEN) if ".skep" in n}
    assert names == set(table()) | {"base"}, names
    with open(os.path.join(GOLDEN, "README")) as f:
        text = f.read()
    for name in names:
        assert f"{name}.skep" in text, f"README says nothing of {name}.skep"
        size = max(os.path.getsize(os.path.join(GOLDEN, n)) for n in os.listdir(GOLDEN)
                   if n.startswith(f"{name}.skep"))
        assert size < 300 << 10, f"{name}.skep has {size >> 10} KiB"


if __name__ == "__main__":
    run(complete, fabricated, *[golden(n) for n in sorted(table()) if n != "demo"], demo)
