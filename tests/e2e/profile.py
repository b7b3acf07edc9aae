"""skep profile: the committed schemas are what the tables of this release give."""
import json
import os
import re
import shutil

from lib import ERROR, TOP, command, run, scratch

PROFILES = os.path.join(TOP, "profiles")


def profile(*argv, code=0):
    got, out = command("profile", *argv, timeout=20)
    assert got == code, f"profile {argv}: exit code {got} where {code} was due: {out!r}"
    return out


def committed():
    """Regenerating gives the files in profiles/, byte for byte: nothing changed unseen."""
    profile("check", PROFILES)
    numbers = [g["generation"] for g in json.loads(profile("list", "--json"))]
    assert sorted(os.listdir(PROFILES)) == [f"gen{n}.cddl" for n in numbers], os.listdir(PROFILES)
    for n in numbers:
        with open(os.path.join(PROFILES, f"gen{n}.cddl")) as f:
            assert f.read() == profile("show", str(n)), f"generation {n} differs"
        profile("check", os.path.join(PROFILES, f"gen{n}.cddl"))
    assert profile("show") == profile("show", str(numbers[-1]))


def listed():
    gens = json.loads(profile("list", "--json"))
    text = profile("list")
    for g in gens:
        kinds = [r["kind"] for r in g["records"]]
        assert len(set(kinds)) == len(kinds) and {"manifest", "machine", "cpu"} <= set(kinds), kinds
        for r in g["records"]:
            assert re.search(rf"{r['kind']} +version {r['version']}\n", text), r
    assert "draft" in text or not any(g["draft"] for g in gens)


def well_formed():
    """Every rule that a schema refers to is there, once, and none is there for nothing."""
    prelude = {"uint", "int", "bytes", "text", "bool", "any"}
    for g in json.loads(profile("list", "--json")):
        lines = [re.sub(r";.*", "", l) for l in profile("show", str(g["generation"])).splitlines()]
        text = re.sub(r'"[^"]*"', '""', "\n".join(lines))
        defined = re.findall(r"^([a-z][a-z0-9_-]*) =", text, re.M)
        assert len(set(defined)) == len(defined), "a rule is there twice"
        used = set(re.findall(r"(?<![\w.-])[a-z][a-z0-9_-]*", text))
        assert used - set(defined) - prelude == set(), used - set(defined) - prelude
        for name in defined[1:]:
            assert len(re.findall(rf"(?<![\w-]){name}(?![\w-])", text)) > 1, f"{name} is not used"
        for a, b in "{}", "[]", "()":
            assert text.count(a) == text.count(b), f"{a} and {b}"


def differences_are_told():
    path = os.path.join(scratch(), "gen1.cddl")
    shutil.copy(os.path.join(PROFILES, "gen1.cddl"), path)
    profile("check", path)
    with open(path) as f:
        lines = f.readlines()
    at = next(i for i, l in enumerate(lines) if l.startswith("record-cpu"))
    for change in (lines[:at] + ["\n"] + lines[at:], lines[:at], lines + ["x\n"]):
        with open(path, "w") as f:
            f.writelines(change)
        out = profile("check", path, code=ERROR)
        line = len(lines) + 1 if len(change) > len(lines) + 0 and change[-1] == "x\n" else at + 1
        assert f"gen1.cddl:{line}:" in out and "profile show 1" in out, out
    assert "gen1.cddl:" in profile("check", scratch(), code=ERROR)


def refused():
    assert "no generation 99" in profile("show", "99", code=ERROR)
    for word in "0", "x", "-1", "99999999":
        profile("show", word, code=ERROR)
    assert 'did you mean "check"' in profile("chekc", code=ERROR)
    assert "genN.cddl" in profile("check", os.path.join(TOP, "LICENSE"), code=ERROR)
    assert "No such file" in profile("check", "/nonexistent/gen1.cddl", code=ERROR)
    other = os.path.join(scratch(), "gen99.cddl")
    open(other, "w").close()
    assert "no generation 99" in profile("check", other, code=ERROR)
    profile(code=ERROR)
    profile("list", "x", code=ERROR)
    profile("show", "--json", code=ERROR)
    for argv in ["--help"], ["list", "-h"]:
        assert "skep profile check" in profile(*argv)
    assert json.loads(profile("check", "--json")) == {"ok": True}


run(committed, listed, well_formed, differences_are_told, refused)
