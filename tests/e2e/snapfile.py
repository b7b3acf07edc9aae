"""The snapshot file to others: readelf, gdb, and the verifier written from skep-snapshot(5)."""
import json
import os
import re
import shutil
import subprocess
import sys
import time

from lib import BUILD, ERROR, TOP, Machine, Skip, command, freestanding, run, scratch, skep

VERIFY = os.path.join(TOP, "tools/verify-snapshot.py")
PATTERN = 0x800000
GPR = "rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15".split()
ENTRY_BITS = 0x5CA1AB1E, 0x0DDBA115


def path(name):
    return os.path.join(scratch(), name)


def snapshots():
    """A machine of one region and one of two, saved in every way; made once."""
    if hasattr(snapshots, "paths"):
        return snapshots.paths
    files = {k: path(f"{k}.skep") for k in
             ("plain", "compressed", "delta", "packed-delta", "large", "flat")}
    for ram, ways in (
            ("64M", (("plain",), ("compressed", "--compress=3"), ("delta", "--delta"),
                     ("packed-delta", "--delta", "--compress"))),
            ("2200M", (("large",),))):
        with Machine("--kernel", freestanding("pattern"), ram=ram, name="snap",
                     console=()) as m:
            for _ in range(100):
                if command("status", "snap")[0] == 0:
                    break
                time.sleep(0.05)
            time.sleep(0.3)
            for way, *flags in ways:
                skep("save", "--quiet", *flags, "snap", files[way])
            m.kill()
    skep("snapshot", "flatten", "--quiet", files["packed-delta"], files["flat"])
    snapshots.paths = files
    return files


def tool(*argv):
    if not shutil.which(argv[0]):
        raise Skip(argv[0])
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=60)


def readelf_is_clean():
    for kind, file in snapshots().items():
        p = tool("readelf", "-h", "-l", "-n", "-W", file)
        assert p.returncode == 0 and not p.stderr, f"{kind}: {p.stderr}"
        assert "CORE (Core file)" in p.stdout and "NT_PRSTATUS" in p.stdout, p.stdout
        loads = re.findall(r"^  LOAD +(\S+) (\S+) (\S+) (\S+) (\S+)", p.stdout, re.M)
        want = {"plain": 1, "flat": 1, "large": 2}.get(kind, 0)
        assert len(loads) == want, f"{kind}: {loads}"
        for offset, _, paddr, filesz, memsz in loads:
            assert int(offset, 16) % (2 << 20) == 0 and filesz == memsz, loads
            assert int(paddr, 16) in (0, 1 << 32), loads


def gdb_threads(file):
    """What gdb says of each thread's registers."""
    p = tool("gdb", "-nx", "-batch", "-ex", "info threads", "-ex",
             "thread apply all -c info registers", "-ex",
             "thread apply all -c info registers fs_base gs_base", "-c", file)
    assert p.returncode == 0, p.stderr
    assert not re.search(r"warning|error|unexpected", p.stdout + p.stderr, re.I), \
        f"{p.stdout[-500:]} {p.stderr}"
    blocks = re.split(r"^Thread (\d+) \(LWP (\d+)\):$", p.stdout, flags=re.M)
    assert blocks[1::3] == blocks[2::3], p.stdout
    regs = {}
    for n, text in zip(blocks[1::3], blocks[3::3]):
        regs.setdefault(int(n), {}).update(re.findall(r"^(\w+) +(0x[0-9a-f]+)", text, re.M))
    return regs


def gdb_shows_registers():
    files = snapshots()
    for kind in "plain", "compressed", "delta", "large", "flat":
        regs = gdb_threads(files[kind])
        assert list(regs) == [1], regs
        assert (int(regs[1]["rbx"], 16), int(regs[1]["rbp"], 16)) == ENTRY_BITS, regs
        same_registers(files[kind], regs)


def gdb_shows_many_processors():
    program, file = os.path.join(BUILD, "tests/snap_write"), path("many.skep")
    for cpus in 2, 5:
        for level in "0", "1":
            subprocess.run([program, file, str(cpus), level], check=True)
            regs = gdb_threads(file)
            assert sorted(regs) == list(range(1, cpus + 1)), regs
            for n, shown in regs.items():
                for k, name in enumerate(GPR):
                    assert int(shown[name], 16) == 0x1000 * n + k, f"{name} of {n}: {shown}"
                assert int(shown["fs_base"], 16) == 0x1111, shown
                assert int(shown["gs_base"], 16) == 0x2222, shown
                assert int(shown["cs"], 16) == 0x10 and int(shown["ss"], 16) == 0x18, shown
            assert independent(file)["files"][0]["threads"] == cpus
            p = tool("readelf", "-l", "-n", "-W", file)
            assert p.returncode == 0 and not p.stderr, p.stderr


def same_registers(file, regs):
    """What gdb shows is what the records say."""
    for n, shown in regs.items():
        cpu = json.loads(skep("inspect", "--json", f"cpu.{n - 1}", file))
        found = find_key(cpu, "gpr")
        assert found is not None, f"no registers in {str(cpu)[:300]}"
        for name, value in zip(GPR, found):
            assert int(shown[name], 16) == as_int(value), f"cpu.{n - 1} {name}: {shown[name]} {value}"
        for key, name in ("rip", "rip"), ("rflags", "eflags"):
            assert int(shown[name], 16) == as_int(find_key(cpu, key)), f"cpu.{n - 1} {name}"


def find_key(tree, key):
    if isinstance(tree, dict):
        if key in tree:
            return tree[key]
        tree = list(tree.values())
    if isinstance(tree, list):
        for x in tree:
            got = find_key(x, key)
            if got is not None:
                return got
    return None


def as_int(v):
    return int(v, 0) if isinstance(v, str) else v


def gdb_shows_memory():
    files = snapshots()
    for kind in "plain", "large", "flat":
        p = tool("gdb", "-nx", "-batch", "-ex", f"x/1xw {PATTERN:#x}", "-c", files[kind])
        assert "0x736b6570" in p.stdout, f"{kind}: {p.stdout} {p.stderr}"


def independent(*argv):
    p = subprocess.run([sys.executable, VERIFY, "--json", *argv], stdin=subprocess.DEVNULL,
                       capture_output=True, text=True, timeout=300)
    assert not p.stderr, p.stderr[-800:]
    got = json.loads(p.stdout)
    assert got["sound"] == (p.returncode == 0), p.returncode
    return got


def verifiers_agree():
    for kind, file in snapshots().items():
        skep("verify", "--quiet", file)
        got = independent(file)
        assert got["sound"], f"{kind}: {got['error']}"
        assert not got["ram"]["skipped"] or not shutil.which("zstd"), got["ram"]
        ours = json.loads(skep("verify", "--json", file))
        assert got["files"][0]["digest"] == find_key(ours, "digest"), f"{kind}: {ours}"
        manifest = json.loads(skep("inspect", "--json", file))
        assert as_int(find_key(manifest, "guest_ns")) == got["files"][0]["guest_ns"]
    chain = [f["kind"] for f in independent(snapshots()["packed-delta"])["files"]]
    assert chain[0] == "delta" and chain[-1] in ("plain", "compressed") and len(chain) >= 2, chain


def verifiers_agree_on_damage():
    """Bytes of notes, headers and RAM changed, files cut short: neither takes them."""
    source = snapshots()["compressed"]
    with open(source, "rb") as f:
        whole = f.read()
    notes = int.from_bytes(whole[72:80], "little")
    places = [0, 5, 17, 41, 57, 64, 70, 80, 100, 113, 4096 + 5, notes - 5000, notes + 3, notes + 9,
              notes + 400, notes + 2000, len(whole) - 100, len(whole) - 30, len(whole) - 1]
    spoiled = path("spoiled.skep")
    for at in places:
        with open(spoiled, "wb") as f:
            f.write(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1:])
        got, code = independent(spoiled), command("verify", "--quiet", spoiled)[0]
        assert code != 0 and not got["sound"], f"byte {at}: {code}, {got['error']}"
    for size in 0, 63, 64, 119, 4096, notes, notes + 100, len(whole) - 1:
        with open(spoiled, "wb") as f:
            f.write(whole[:size])
        got, code = independent(spoiled), command("verify", "--quiet", spoiled)[0]
        assert code != 0 and not got["sound"], f"{size} bytes: {code}, {got['error']}"
        assert command("restore", spoiled)[0] == ERROR
    with open(spoiled, "wb") as f:
        f.write(whole + b"\0")
    assert command("verify", "--quiet", spoiled)[0] != 0 and not independent(spoiled)["sound"]


def broken_chains():
    files = snapshots()
    lost = path("elsewhere")
    os.makedirs(lost, exist_ok=True)
    for kind in "delta", "packed-delta":
        shutil.copy(files[kind], lost)
    # Their parents are where the manifests say.
    assert independent(os.path.join(lost, "delta.skep"))["sound"]
    parent = find_key(json.loads(skep("inspect", "--json", files["delta"])), "parent_path")
    assert parent, "a delta without the path of its parent"
    hidden = files["compressed"] + ".away"
    os.rename(files["compressed"], hidden)
    try:
        for file in files["delta"], os.path.join(lost, "delta.skep"):
            got = independent(file)
            assert not got["sound"] and "parent is missing" in got["error"], got["error"]
            out = command("verify", file)
            assert out[0] != 0 and "parent is missing" in out[1], out
        # Beside the child it is found again.
        shutil.copy(hidden, os.path.join(lost, "compressed.skep"))
        assert independent(os.path.join(lost, "delta.skep"))["sound"]
        skep("verify", "--quiet", os.path.join(lost, "delta.skep"))
    finally:
        os.rename(hidden, files["compressed"])


def manual_is_clean():
    p = tool("mandoc", "-T", "lint", "-W", "warning", os.path.join(TOP, "doc/skep-snapshot.5"))
    assert p.returncode == 0 and not p.stdout, p.stdout


run(readelf_is_clean, gdb_shows_registers, gdb_shows_many_processors, gdb_shows_memory, verifiers_agree,
    verifiers_agree_on_damage, broken_chains, manual_is_clean)
