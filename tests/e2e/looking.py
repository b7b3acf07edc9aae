"""skep inspect, verify, diff and snapshot: what they say of good files, damaged ones, and lies."""
import importlib.util
import gzip
import json
import mmap
import os
import random
import re
import resource
import shutil
import struct
import subprocess
import time

from lib import ERROR, HALT, LONG, SKEP, TOP, command, run, scratch, skep

BAD, DIFFER = 1, 1
UUID = "11111111-2222-4333-8444-555555555555"
RAM_AT = 0x200000                       # of a plain file: where guest-physical 0 lies
ODD_CMDLINE = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
COMMANDS = ["inspect"], ["inspect", "manifest"], ["verify"], ["snapshot", "chain"]


def path(name):
    return os.path.join(scratch(), name)


def sayings(*argv, timeout=20):
    """Exit code, standard output and standard error, as bytes; on little memory."""
    def bound():
        resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
    p = subprocess.run([SKEP, *argv], stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout,
                       preexec_fn=None if "asan" in SKEP else bound)
    assert p.returncode >= 0, f"skep {' '.join(argv)} died of signal {-p.returncode}"
    assert b"Sanitizer" not in p.stderr and b"runtime error" not in p.stderr, p.stderr.decode()[-2000:]
    return p.returncode, p.stdout, p.stderr


def machine(points, *more, ram="64M", name="looking"):
    """The demo guest with a clock of its own, saved at these counts of instructions."""
    saves = sum((["--save-at", f"{n}:{f}"] for n, f in points), [])
    code, out = command("run", "-c", "1", "-m", ram, "-U", UUID, "-l", "com1,null",
                        "-o", "clock.mode=virtual", "-o", "seed=7", "-o", "boot.demo=true", *more,
                        "-o", f"clock.limit={points[-1][0] + 1}", *saves, name)
    assert code == HALT, out
    return [f for _, f in points]


def files():
    """Two moments of one machine; made once."""
    if not hasattr(files, "made"):
        files.made = machine([(1000000, path("a.skep")), (3000001, path("b.skep"))],
                             "-o", f"boot.cmdline={ODD_CMDLINE}")
    return files.made


def delta_files():
    """A running guest's base and two deltas on it; made once."""
    if hasattr(delta_files, "made"):
        return delta_files.made
    made = [path(f"d{i}.skep") for i in range(3)]
    p = subprocess.Popen([SKEP, "run", "-c", "1", "-m", "64M", "-l", "com1,null", "-o", "boot.demo=true",
                          "deltas"], stdin=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while command("status", "deltas")[0]:
            assert time.monotonic() < end and p.poll() is None, "the machine does not answer"
            time.sleep(0.05)
        for i, f in enumerate(made):
            skep("save", *(["--delta"] if i else []), *(["--compress"] if i == 2 else []), "deltas", f)
            time.sleep(0.3)
    finally:
        p.kill()
        p.wait()
    delta_files.made = made
    return made


# ---- Files that lie -------------------------------------------------------

def _xxh3():
    spec = importlib.util.spec_from_file_location("verify_snapshot",
                                                  os.path.join(TOP, "tools/verify-snapshot.py"))
    m = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(m)
    return m.xxh3_128


class Patched:
    """A copy of a snapshot whose notes can be changed; the digest follows."""

    def __init__(self, source, name):
        self.path = path(name)
        subprocess.run(["cp", "--sparse=always", source, self.path], check=True)
        with open(self.path, "rb") as f:
            self.headers = f.read(64)
            self.headers += f.read(56 * struct.unpack_from("<H", self.headers, 56)[0])
            self.at, = struct.unpack_from("<Q", self.headers, 72)
            f.seek(self.at)
            self.notes = bytearray(f.read())

    def replace(self, old, new, count=1):
        assert len(old) == len(new) and self.notes.count(old) >= count, (old, self.notes.count(old))
        i = self.notes.index(old)
        self.notes[i:i + len(old)] = new
        return self

    def write(self, seal=True):
        if seal:
            if not hasattr(Patched, "sum"):
                Patched.sum = staticmethod(_xxh3())
            self.notes[-16:] = Patched.sum(self.headers + bytes(self.notes[:-16]))
        with open(self.path, "r+b") as f:
            f.seek(self.at)
            f.write(self.notes)
        return self.path


def flip(file, offset, bit=1):
    with open(file, "r+b") as f:
        f.seek(offset)
        old = f.read(1)[0]
        f.seek(offset)
        f.write(bytes([old ^ bit]))


def fit_for_a_terminal(out, what):
    text = out.decode("utf-8")
    bad = [c for c in text if (ord(c) < 32 and c != "\n") or 0x7f <= ord(c) < 0xa0 or
           ord(c) in range(0x202a, 0x202f) or ord(c) in range(0x2066, 0x206a)]
    assert not bad, f"{what}: {bad[0]!r} reached the terminal"
    return text


def all_say(file, good=None):
    """Every command looks at the file: plain text, JSON, no crash. Returns verify's code."""
    for words in COMMANDS:
        code, out, err = sayings(*words, file)
        assert code in (0, BAD, ERROR), (words, code)
        assert code == 0 or err, f"skep {words} ended with {code} and said nothing"
        fit_for_a_terminal(out, words)
        fit_for_a_terminal(err, words)
        if words == ["verify"]:
            verdict = code
        if words == ["inspect", "manifest"]:
            continue
        code, out, err = sayings(*words, "--json", file)
        fit_for_a_terminal(err, words)
        if out:
            json.loads(out)
    return verdict


# ---- Good files -----------------------------------------------------------

def page():
    a, b = files()
    out = skep("inspect", a)
    for what in (UUID, "64 MiB", "skep-v2.1", "virtual", "ring 0", "generation 1", "lpc.com1.path=null",
                 "2026-", "since it was switched on", "ns16550a", "a.skep: a plain snapshot", "looking"):
        assert what in out, f"{what!r} is not on the page:\n{out}"
    j = json.loads(skep("inspect", "--json", a))
    assert j["uuid"] == UUID and j["kind"] == "plain" and j["name"] == "looking"
    assert j["size"] == os.path.getsize(a) and j["allocated"] == os.stat(a).st_blocks * 512
    assert j["ram_bytes"] == 64 << 20 and 0 < j["ram_stored"] < 8 << 20
    assert j["settings"]["lpc.com1.path"] == {"value": "null", "host": True}
    assert j["settings"]["boot.cmdline"] == {"value": ODD_CMDLINE, "host": False}
    assert j["manifest"]["guest_ns"] == json.loads(skep("inspect", "--json", "machine", a)) \
        ["records"][0]["fields"]["guest_ns"]
    cpu, = [r for r in j["records"] if r["kind"] == "cpu"]
    assert cpu["fields"]["rip"] == j["cpus"][0]["rip"] and j["cpus"][0]["mode"] == "64-bit mode"
    assert len(j["records"]) == json.loads(skep("verify", "--json", a))["files"][0]["records"]
    assert f"config.boot.cmdline = {ODD_CMDLINE}" in skep("inspect", "manifest", a)
    out = skep("inspect", "cpu.0", a)
    assert f"cpu.0.rip = {cpu['fields']['rip']:#x}\n" in out and "lpc" not in out
    assert len(set(re.findall(r"^(lpc\.com\d)\.", skep("inspect", "ns16550a", a), re.M))) == 4
    assert 'did you mean "cpu.0"' in skep("inspect", "cpu.o", a, code=ERROR)
    assert "no record" in skep("inspect", "nonsense", a, code=ERROR)


def used_wrongly():
    a, b = files()
    for word in "inspect", "verify", "diff", "snapshot":
        assert f"usage: skep {word}" in skep(word, "--help")
        skep(word, code=ERROR)
        skep(word, "--nonsense", a, code=ERROR)
        assert "No such file" in skep(word, *(["chain"] if word == "snapshot" else []), path("nothing"),
                                      *([a] if word == "diff" else []), code=ERROR)
        assert "regular file" in skep(word, *(["chain"] if word == "snapshot" else []),
                                      *([a] if word == "diff" else []), "/dev/null", code=ERROR)
    with open(a, "rb") as f, open(path("packed.skep"), "wb") as g:
        g.write(gzip.compress(f.read(1 << 20)))
    assert "is packed: unpack it first, with gzip -d" in skep("inspect", path("packed.skep"), code=ERROR)
    assert 'did you mean "--json"' in skep("verify", "--jsn", a, code=ERROR)
    assert 'did you mean "flatten"' in skep("snapshot", "flaten", a, b, code=ERROR)
    skep("diff", a, code=ERROR)
    skep("diff", a, b, a, code=ERROR)
    skep("diff", "--ram=pages", a, b, code=ERROR)
    skep("snapshot", "flatten", a, code=ERROR)
    skep("snapshot", "chain", "--compress", a, code=ERROR)
    skep("snapshot", "flatten", "--compress=20", a, path("x"), code=ERROR)
    skep("snapshot", "flatten", a, path("no/such/directory/x"), code=ERROR)
    full = subprocess.run([SKEP, "inspect", a], stdout=open("/dev/full", "w"), stderr=subprocess.PIPE)
    assert full.returncode == ERROR and b"cannot be written" in full.stderr


def differences():
    a, b = files()
    assert "The machines are the same" in skep("diff", a, a)
    d = json.loads(skep("diff", "--json", "--ram", a, b, code=DIFFER))
    fields = {f["field"]: f for f in d["fields"]}
    assert {"cpu.0.rip", "machine.insns", "manifest.guest_ns"} <= set(fields), fields.keys()
    assert fields["machine.insns"]["b"] == hex(3000001) and not fields["machine.insns"]["host"]
    assert {n for n, f in fields.items() if f["host"]} == \
        {"manifest.id", "manifest.host_wall_ns", "manifest.written"}
    with open(a, "rb") as fa, open(b, "rb") as fb:
        ma = mmap.mmap(fa.fileno(), 0, access=mmap.ACCESS_READ)
        mb = mmap.mmap(fb.fileno(), 0, access=mmap.ACCESS_READ)
        pages = [p for p in range(RAM_AT, RAM_AT + (64 << 20), 4096) if ma[p:p + 4096] != mb[p:p + 4096]]
        assert d["ram_bytes"] == sum(x != y for p in pages for x, y in zip(ma[p:p + 4096], mb[p:p + 4096]))
    assert d["ram_pages"] == len(pages) and d["ram_size"] == 64 << 20
    told = [p for r in d["ram_ranges"] for p in range(r["gpa"], r["gpa"] + r["len"], 4096)]
    assert told == [p - RAM_AT for p in pages], "the ranges are others"
    for x, y in zip(d["ram_ranges"], d["ram_ranges"][1:]):
        assert x["gpa"] + x["len"] < y["gpa"], "neighbours are told apart"
    out = skep("diff", "--ram", a, b, code=DIFFER)
    assert "cpu.0.rip" in out and f"{len(pages)} pages of 16384 differ" in out and "RAM at 0x" in out
    assert out.index("About the machine") < out.index("machine.insns") < out.index("About the file")
    assert skep("diff", "--quiet", a, b, code=DIFFER) == ""


def only_the_host():
    """The same moment of the same machine, on another console, under another name."""
    a, _ = files()
    other, = machine([(1000000, path("other.skep"))], "-o", f"boot.cmdline={ODD_CMDLINE}",
                     "-o", "on_reboot=restart")
    d = json.loads(skep("diff", "--json", "--ram=bytes", a, other))
    assert d["same"] and d["ram_pages"] == 0 and d["ram_read"] > 0, d
    assert {f["field"] for f in d["fields"]} == {"manifest.id", "manifest.host_wall_ns",
                                                 "manifest.config.on_reboot"}, d
    assert all(f["host"] for f in d["fields"])
    assert json.loads(skep("diff", "--json", a, other))["ram_read"] == 0, "equal checksums were read"
    small, = machine([(1000000, path("small.skep"))], ram="32M")
    d = json.loads(skep("diff", "--json", a, small, code=DIFFER))
    assert d["ram_pages"] >= 8192 and d["ram_size"] == 64 << 20, d["ram_pages"]
    names = {f["field"] for f in d["fields"]}
    assert {"manifest.regions[0].size", "manifest.config.memory.size", "manifest.config.boot.cmdline"} \
        <= names, names


def flattened():
    a, b = files()
    small, plain = path("small.z"), path("plain.skep")
    for args, kind in (["--compress=3"], "compressed"), (["--compress"], "compressed"), ([], "plain"):
        out = json.loads(skep("snapshot", "flatten", "--json", *args, b, small))
        assert out["kind"] == kind and out["size"] == os.path.getsize(small)
        skep("verify", small)
        assert json.loads(skep("diff", "--json", b, small))["same"]
        assert json.loads(skep("diff", "--json", "--ram=bytes", small, b))["same"]
        d = json.loads(skep("diff", "--json", a, small, code=DIFFER))
        assert d["ram_pages"] == json.loads(skep("diff", "--json", a, b, code=DIFFER))["ram_pages"]
    skep("snapshot", "flatten", "--compress", b, small)
    skep("snapshot", "flatten", "--quiet", small, plain)
    assert json.loads(skep("inspect", "--json", plain))["kind"] == "plain"
    shutil.copy(plain, path("self.skep"))
    skep("snapshot", "flatten", "--compress", path("self.skep"), path("self.skep"))
    assert json.loads(skep("inspect", "--json", path("self.skep")))["kind"] == "compressed"
    assert json.loads(skep("diff", "--json", path("self.skep"), b))["same"]


def chains():
    base, middle, last = delta_files()
    out = json.loads(skep("snapshot", "chain", "--json", last))["chain"]
    assert [os.path.basename(x["file"]) for x in out] == ["d2.skep", "d1.skep", "d0.skep"]
    assert [x["kind"] for x in out] == ["compressed delta", "delta", "plain"]
    text = skep("snapshot", "chain", last)
    assert text.index("d2.skep") < text.index("d1.skep") < text.index("d0.skep")
    page = skep("inspect", last)
    assert "a compressed delta snapshot" in page and "d1.skep (delta" in page
    assert " 2 parents" in skep("verify", last)
    for out in base, middle:
        said = skep("snapshot", "flatten", last, out, code=ERROR)
        assert "is a parent" in said, said
    skep("verify", last)
    flat = path("flat.skep")
    skep("snapshot", "flatten", last, flat)
    assert json.loads(skep("diff", "--json", last, flat))["same"]
    assert json.loads(skep("diff", "--json", "--ram=bytes", flat, last))["same"]
    d = json.loads(skep("diff", "--json", middle, last, code=DIFFER))
    exact = json.loads(skep("diff", "--json", "--ram=bytes", middle, last, code=DIFFER))
    assert (d["ram_pages"], d["ram_bytes"]) == (exact["ram_pages"], exact["ram_bytes"])
    assert d["ram_read"] <= exact["ram_read"]
    # Without its parent: what is in the delta alone can still be looked at.
    away = path("away")
    os.makedirs(away)
    shutil.copy(last, away)
    alone = os.path.join(away, "d2.skep")
    os.rename(middle, middle + ".gone")
    try:
        page = skep("inspect", alone)
        assert "cannot be opened" in page and "d1.skep" in page
        j = json.loads(skep("inspect", "--json", alone))
        assert j["parents"] == [] and "missing" in j["parents_error"]
        for argv in ["verify", alone], ["snapshot", "chain", alone], ["diff", alone, flat]:
            said = skep(*argv, code=BAD if argv[0] == "verify" else ERROR)
            assert "its parent is missing" in said, said
        # What there is of a chain is told before what is missing.
        said = skep("snapshot", "chain", last, code=ERROR)
        assert said.index("d2.skep\n") < said.index("its parent is missing"), said
        said = skep("snapshot", "chain", "--json", last, code=ERROR)
        j, _ = json.JSONDecoder().raw_decode(said)
        assert [os.path.basename(x["file"]) for x in j["chain"]] == ["d2.skep"] and "d1.skep" in j["error"]
        os.rename(middle + ".gone", middle)
        os.rename(base, base + ".gone")
        try:
            said = skep("snapshot", "chain", last, code=ERROR)
            assert said.index("d2.skep\n") < said.index("d1.skep\n") < said.index("its parent is missing")
        finally:
            os.rename(base + ".gone", base)
            os.rename(middle, middle + ".gone")
    finally:
        os.rename(middle + ".gone", middle)
    # And damage of a parent is told of the parent.
    whole = open(base, "rb").read()
    sums = struct.unpack_from("<Q", whole, 72)[0]
    used = next(p for p in range(RAM_AT, sums, 4096) if whole[p:p + 4096].strip(b"\0"))
    flip(base, used)
    assert "d0.skep: RAM at " in skep("verify", last, code=BAD)
    flip(base, used)
    skep("verify", last)


# ---- Damaged files --------------------------------------------------------

def damaged_ram():
    a, _ = files()
    copy = path("damaged.skep")
    with open(a, "rb") as f:
        f.seek(RAM_AT)
        ram = f.read(64 << 20)
    used = [p for p in range(0, len(ram), 4096) if ram[p:p + 4096].strip(b"\0")]
    for gpa in used[0], used[-1] + 4095, len(ram) - 1:       # the last one lies in a hole
        subprocess.run(["cp", "--sparse=always", a, copy], check=True)
        flip(copy, RAM_AT + gpa, 0x80)
        said = skep("verify", copy, code=BAD)
        assert f"damaged.skep: RAM at {gpa & ~0x1fffff:#x} " in said.replace("at 0 ", "at 0x0 "), said
        j = json.loads(skep("verify", "--json", a, copy, code=BAD))
        assert [f["good"] for f in j["files"]] == [True, False] and not j["good"]
        skep("inspect", copy)
        said = skep("snapshot", "flatten", copy, path("never"), code=ERROR) if gpa != len(ram) - 1 else ""
        assert not os.path.exists(path("never")), said
    assert skep("verify", "--quiet", a) == ""
    skep("verify", a, path("nothing"), code=ERROR)
    skep("diff", "--json", "--ram=bytes", a, copy)           # a hole is a hole for a restore, too


def damaged_notes():
    a, _ = files()
    p = Patched(a, "notes.skep")
    good = bytes(p.notes)
    rng = random.Random(3)
    for at in sorted(rng.sample(range(len(good)), 2000 if LONG else 60)):
        p.notes = bytearray(good)
        p.notes[at] ^= 1 << rng.randrange(8)
        p.write(seal=False)
        code, out, err = sayings("verify", p.path)
        assert code == BAD and b"notes.skep: " in err, f"byte {at} of the notes: {code} {err}"
    assert sayings("inspect", p.path)[0] == ERROR and sayings("diff", a, p.path)[0] == ERROR
    p.notes = bytearray(good)
    assert sayings("verify", p.write(seal=False))[0] == 0


def truncated():
    a, _ = files()
    size = os.path.getsize(a)
    notes = Patched(a, "t.skep").at
    rng = random.Random(4)
    lengths = {0, 1, 63, 64, 231, 232, 4096, RAM_AT, notes - 1, notes, notes + 1, size - 1, size - 16}
    lengths |= {rng.randrange(size) for _ in range(10)} | {rng.randrange(notes, size) for _ in range(20)}
    copy = path("t.skep")
    for n in sorted(lengths, reverse=True):
        os.truncate(copy, n)
        code, out, err = sayings("verify", copy)
        assert code == BAD and err.startswith(b"skep: "), f"{n} bytes: {code} {err}"
        assert sayings("inspect", "--json", copy)[0] == ERROR
    with open(a, "rb") as f, open(path("longer.skep"), "wb") as out:
        shutil.copyfileobj(f, out)
        out.write(b"\0")
    assert "after its end" in skep("verify", path("longer.skep"), code=BAD)


# ---- Lies -----------------------------------------------------------------

def escape_sequences():
    """What a file says reaches the terminal as text, and JSON as JSON, whatever it is."""
    a, b = files()
    last = delta_files()[2]
    lies = (b"\x1b]0;owned\x07\x1b[2J", "\u009b31m\u202e\u2066 gpj".encode(), b"\xff\xfe\xc0\xaf\xed\xa0\x80",
            b"\r\nskep: all is well\n", "gr\u00fc\u00dfe \"\\".encode())
    for i, lie in enumerate(lies):
        for field in b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:len(lie)], b"looking"[:len(lie)], b"ns16550a"[:len(lie)], \
                b"lpc.com1"[:len(lie)], b"skep-v2.1"[:len(lie)], b"mc146818"[:len(lie)], b"checked":
            new = lie[:len(field)].ljust(len(field), b"\x1b")
            p = Patched(a, f"lie{i}.skep").replace(field, new).write()
            all_say(p)
            fit_for_a_terminal(sayings("diff", a, p)[1], field)
            code, out, err = sayings("diff", "--json", b, p)
            fit_for_a_terminal(err, field)
            assert not out or json.loads(out)
    p = Patched(a, "shown.skep").replace(b"ABCDEFGH", b"\x1b[31m\xff\n\"").write()
    assert "config.boot.cmdline = \\x1b[31m\\xff\\x0a\"IJKL" in skep("inspect", "manifest", p)
    assert json.loads(skep("inspect", "--json", p))["settings"]["boot.cmdline"]["value"] \
        .startswith('\x1b[31m\xff\n"IJKL')
    d = json.loads(skep("diff", "--json", a, p, code=DIFFER))
    assert [f["b"][:8] for f in d["fields"] if f["field"] == "manifest.config.boot.cmdline"] == ["\\x1b[31m"]
    p = Patched(last, "lost.skep")
    p.replace(b"/d1.skep", b"/\x1b[2J\n\r\x9b").write()
    all_say(p.path)


def unknown_records():
    a, _ = files()
    p = Patched(a, "unknown.skep").replace(b"hostbridge", b"hostbrigde").write()
    said = skep("verify", p, code=BAD)
    assert "hostbrigde" in said and "pci.0.0.0" in said, said
    assert "not readable" in skep("inspect", p)
    r, = [r for r in json.loads(skep("inspect", "--json", p))["records"] if r["name"] == "pci.0.0.0"]
    assert "fields" not in r and r["cbor"]["kind"] == "hostbrigde" and "command" in r["cbor"]["req"]
    assert '"command": ' in skep("inspect", "pci.0.0.0", p)
    d = json.loads(skep("diff", "--json", a, p, code=DIFFER))
    assert [f["field"] for f in d["fields"] if not f["host"]] == ["pci.0.0.0"], d["fields"]
    p = Patched(a, "renamed.skep").replace(b"dnamehlpc.com1", b"dnamehlpc.com9").write()
    d = json.loads(skep("diff", "--json", a, p, code=DIFFER))
    assert [(r["name"], r["in"]) for r in d["records"]] == [("lpc.com1", "a"), ("lpc.com9", "b")], d
    out = skep("diff", a, p, code=DIFFER)
    assert f"Only in {a}: lpc.com1" in out and f"Only in {p}: lpc.com9" in out
    assert "lpc.com9" in skep("verify", p, code=BAD)
    p = Patched(a, "twice.skep").replace(b"dnamehlpc.com1", b"dnamehlpc.com2").write()
    assert "lpc.com2: there are two records" in skep("verify", p, code=BAD)


def rules():
    """A range of a table, a rule across records, and what manifest, settings and machine agree on."""
    a, _ = files()
    for old, new, what in ((b"fhalted\x00", b"fhalted\x02", "cpu.0.halted"),
                           (b"ccr8\x00", b"ccr8\x01", "cr8"),
                           (b"gtsc_khz\x1a\x00\x0fB@", b"gtsc_khz\x1a\x00\x0fBA", "TSC"),
                           (b"dcpus\x01", b"dcpus\x02", "processors")):
        p = Patched(a, "rule.skep").replace(old, new).write()
        said = skep("verify", p, code=BAD)
        assert what in said, said
        assert skep("restore", "-o", "control=none", p, code=ERROR).splitlines()[-1] == said.strip()


def what_is_good_restores():
    """Bytes of the notes changed at random, the digest made to fit: good for verify, good for restore."""
    a, _ = files()
    p = Patched(a, "mutant.skep")
    good = bytes(p.notes)
    rng = random.Random(int(os.environ.get("SKEP_TEST_SEED", "1")))
    verdicts = {0: 0, BAD: 0}
    for i in range(4000 if LONG else 120):
        p.notes = bytearray(good)
        for _ in range(rng.choice((1, 1, 2, 5))):
            at = rng.randrange(len(good) - 16)
            p.notes[at] = rng.choice((p.notes[at] ^ 1 << rng.randrange(8), rng.randrange(256), 0, 255))
        p.write()
        if i % 20 == 0:
            all_say(p.path)
        code, out, err = sayings("verify", p.path)
        assert code in verdicts, f"mutant {i}: verify ended with {code}: {err}"
        verdicts[code] += 1
        if code == BAD:
            assert err.startswith(b"skep: "), err
            continue
        code, out, err = sayings("restore", "-o", "lpc.com1.path=null", "-o", "clock.limit=1000", "-o",
                                 "control=none", p.path)
        assert code != ERROR, f"mutant {i}: verify says good, and restore says {err}"
    print(f"# {verdicts[0]} mutants are good, {verdicts[BAD]} are not", flush=True)
    assert verdicts[BAD]


if __name__ == "__main__":
    run(page, used_wrongly, differences, only_the_host, flattened, chains, damaged_ram, damaged_notes,
        truncated, escape_sequences, unknown_records, rules, what_is_good_restores)
