"""The command line: what it prints, what it refuses, and that the manual keeps up with it."""
import json
import os
import re
import shutil
import subprocess

from lib import ERROR, POWEROFF, SKEP, TOP, Skip, command, run, scratch

MANUAL = os.path.join(TOP, "doc/skep.8")


def says(code, words, *argv):
    """skep ARGV ends with the code and prints each of the words; returns what it printed."""
    got, out = command(*argv, timeout=20)
    assert got == code, f"{argv}: exit code {got} where {code} was due: {out!r}"
    for word in [words] if isinstance(words, str) else words:
        assert word in out, f"{argv}: {word!r} is not in {out!r}"
    return out


def refused(words, *argv):
    out = says(ERROR, words, "run", *argv)
    assert out.startswith("skep: ") and len(out.splitlines()) == 1, f"not one sentence: {out!r}"


def keys():
    return json.loads(says(0, "memory.size", "help", "keys", "--json"))


def dump(*argv):
    return says(POWEROFF, "name=", "run", *argv, "-o", "config.dump=true")


def teaches():
    for argv in [], ["help"], ["--help"], ["-h"]:
        says(0, ["skep demo", "skep run", "help keys"], *argv)
    for argv in ["run", "--help"], ["run", "-h"], ["help", "run"], ["demo", "--run", "--help"]:
        says(0, ["-c CPUS", "--kernel FILE", "Examples", "SIGTERM"], *argv)
    says(0, ["save, kill", "--run"], "demo", "--help")
    for argv in ["save", "--help"], ["restore", "--help"], ["clone", "-h"]:
        says(0, ["usage: skep " + argv[0], "Examples"], *argv)
    says(0, ["hostbridge", "lpc"], "run", "-s", "help")
    says(0, ["com1", "stdio", "tcp="], "run", "-l", "help")
    says(0, ["memory.size", "default 256M"], "run", "-o", "help")
    says(0, ["com1", "hostbridge"], "help", "devices")


def version():
    out = says(0, "skep ", "version")
    assert re.fullmatch(r"skep \d+\.\d+\.\d+\S*\n", out), out
    v = json.loads(says(0, "version", "version", "--json"))["version"]
    assert out == f"skep {v}\n"
    with open(os.path.join(TOP, "meson.build")) as f:
        assert f"version: '{v}'" in f.read(), "meson.build has another version"


def mistyped_words():
    says(ERROR, 'did you mean "run"?', "rnu")
    says(ERROR, "skep help", "something")
    says(ERROR, 'did you mean "keys"?', "help", "kyes")
    says(ERROR, "--json", "help", "run", "--json")
    refused('did you mean "--kernel"?', "--kernle", "x")
    refused("no flag -z", "-z")
    refused("no flag -z", "-Hz")
    refused("-m needs an argument", "-m")
    refused("--kernel needs an argument", "--kernel")
    refused("takes no argument", "--help=x")
    refused("flags come first", "one", "two")
    refused('did you mean "memory.size"?', "-o", "memory.siz=1G")
    refused("is not an assignment", "-o", "name")


def nothing_to_boot():
    refused("nothing to boot")
    refused("exclude each other", "-o", "boot.demo=true", "--kernel", "x")


def processors():
    assert "cpus=8\n" in dump("-c", "sockets=2,cores=2,threads=2")
    out = dump("-c", "6,cores=3")
    assert "cpus=6\n" in out and "sockets=2\n" in out and "cores=3\n" in out
    refused("are not", "-c", "4,cores=3")
    refused("none of cpus", "-c", "4,core=3")
    refused("cpus", "-c", "0")
    refused("whole number", "-c", "many")


def memory():
    for size in "512", "512M", "512m", "512MB", "512MiB", "524288K", "536870912B":
        assert f"memory.size={size}\n" in dump("-m", size)
    for size in "1", "lots", "-1", "", "1.5G", "99T":
        refused("memory.size", "-m", size)


def slots():
    out = dump("-s", "0,hostbridge", "-s", "0:31:0,lpc")
    assert "pci.0.0.0.device=hostbridge\n" in out and "pci.0.31.0.device=lpc\n" in out
    assert "pci.0.31.0.device=lpc\n" in dump("-s", "31:0,lpc")
    refused(['no device "nvme"', "hostbridge, lpc"], "-s", "3,nvme,disk.img")
    refused("write -s 31,lpc", "-s", "1,lpc")
    refused("not a slot", "-s", "a,lpc")
    refused("not a slot", "-s", "0:1:2:3,lpc")
    refused("not a slot", "-s", "-1,lpc")
    refused("not a slot", "-s", "256,lpc")
    refused("slots go from", "-s", "32,lpc")
    refused("which device", "-s", "3")
    refused("which device", "-s", "3,")
    refused("takes no", "-s", "31,lpc,fast")
    refused("unknown key", "-s", "31,lpc,speed=9")


def lpc_devices():
    assert "lpc.com2.path=tcp=127.0.0.1:1\n" in dump("-l", "com2,tcp=127.0.0.1:1")
    assert "lpc.fwcfg=qemu\n" in dump("-l", "fwcfg,qemu")
    assert "lpc.debug_exit=true\n" in dump("-l", "debug-exit")
    refused("connected to what", "-l", "com1")
    refused('did you mean "com1"?', "-l", "com11,stdio")
    refused("lpc.com1 has it", "-o", "boot.demo=true", "-l", "com1,stdio", "-l", "com2,stdio")
    refused("lpc.fwcfg=bhyve", "-l", "fwcfg,bhyve")
    for arg in "bootrom,/x", "bootrom", "tpm,passthru,/dev/tpm0", "pc-testdev":
        refused("not built yet", "-l", arg)


def firmware_files():
    out = dump("-f", "opt/a,string=x,y=z", "-f", "opt/b,file=/b")
    for line in "fwcfg.0.name=opt/a", "fwcfg.0.string=x,y=z", "fwcfg.1.file=/b":
        assert line + "\n" in out, out
    refused("-f name,string=", "-f", "opt/a")
    refused("55 characters", "-f", "x" * 56 + ",string=a")


def flags_of_bhyve():
    """Each has its meaning or is refused: none is unknown, none passes unnoticed."""
    dump("-AHPDYuxa")
    for argv in (["-w"], ["-e"], ["-S"], ["-C"], ["-W"], ["-M"], ["-G", "1234"], ["-K", "us"],
                 ["-p", "0:1"], ["-r", "file"]):
        refused(argv[0] + ": ", *argv)


def domains():
    out = dump("-c", "4", "-n", "id=0,size=192M,cpus=0,2-3", "-n", "id=1,size=64M,cpus=1")
    for line in "domains.0.cpus=0,2-3", "domains.0.size=192M", "domains.1.cpus=1":
        assert line + "\n" in out, out
    refused("write -n id=0", "-n", "0")
    refused("write -n id=0", "-n", "id=x,size=1G")
    refused("none of id, size, cpus; where", "-n", "id=0,size=256M,cpus=0,domain_policy=prefer:1")
    refused("in none of them", "-c", "2", "-n", "id=0,size=256M,cpus=0")


def every_limited_key_says_why():
    other = {"true": "false", "false": "true", "qemu": "bhyve"}
    for key in keys():
        if "only" in key:
            refused(key["key"] + "=", "-o", f"{key['key']}={other[key['only']]}")
            dump("-o", f"{key['key']}={key['only']}")


def configuration_file():
    path = os.path.join(scratch(), "vm.conf")
    with open(path, "w") as f:
        f.write("# mine\nname=from-file\nmemory.size=64M\nboot.cmdline= a=%%b  # c\n")
    out = dump("-k", path, "-m", "96M")
    assert "name=from-file\n" in out and "memory.size=96M\n" in out
    assert "boot.cmdline=a=%%b  # c\n" in out
    # Later settings win, the name last of all; and the dump loads again to the same dump.
    assert "memory.size=64M\n" in dump("-m", "96M", "-k", path)
    assert "name=mine\n" in says(POWEROFF, "", "run", "-o", "config.dump=1", "-k", path, "mine")
    again = os.path.join(scratch(), "again.conf")
    with open(again, "w") as f:
        f.write(out)
    assert dump("-k", again) == out
    with open(path, "a") as f:
        f.write("memory.siz=1\n")
    refused([path + ":5: ", "memory.size"], "-k", path)
    refused("/nowhere/at/all", "-k", "/nowhere/at/all")


def unwritable_outputs():
    for option in "--stats", "--dump-state":
        refused([option, "/nowhere/out"], option, "/nowhere/out", "--kernel", "/dev/null")


def names_of_bhyve():
    link = os.path.join(scratch(), "bhyve")
    for name in "bhyve", "bhyvectl":
        os.symlink(os.path.abspath(shutil.which(SKEP) or SKEP), os.path.join(scratch(), name))
    p = subprocess.run([link, "-c", "1", "-m", "64M", "-H", "-A", "-s", "0,hostbridge", "-s", "31,lpc",
                        "-o", "config.dump=true", "vm1"], capture_output=True, text=True)
    assert p.returncode == POWEROFF and "name=vm1\n" in p.stdout, (p.returncode, p.stdout, p.stderr)
    p = subprocess.run([link + "ctl", "--vm=x", "--destroy"], capture_output=True, text=True)
    assert p.returncode == ERROR and 'no machine named "x"' in p.stderr, (p.returncode, p.stderr)


def manual_is_sound():
    if not shutil.which("mandoc"):
        raise Skip("mandoc is not installed")
    p = subprocess.run(["mandoc", "-Tlint", "-W", "warning", MANUAL], capture_output=True, text=True)
    assert p.returncode == 0 and not p.stdout, p.stdout


def manual_is_complete():
    with open(MANUAL) as f:
        text = f.read()
    for key in keys():
        name = re.escape(key["key"])
        assert re.search(rf"\bCm {name}(?=[ =,\n])", text), f"the manual has no {key['key']}"
        default = key.get("default")
        if default and "only" not in key and default not in ("false", "true"):
            assert re.search(rf"\b{re.escape(default)}\b", text), f"{key['key']}: no {default}"
    flags = says(0, "", "run", "--help")
    for letter in re.findall(r"^  -(\w)", flags, re.M):
        assert re.search(rf"\.(It|Op) Fl {letter}\b", text), f"the manual has no -{letter}"
    for word in re.findall(r"^  .{0,4}--([\w-]+)", flags, re.M):
        assert re.search(rf"-{word}\b", text), f"the manual has no --{word}"


run(teaches, version, mistyped_words, nothing_to_boot, processors, memory, slots, lpc_devices,
    firmware_files, flags_of_bhyve, domains, every_limited_key_says_why, configuration_file,
    unwritable_outputs, names_of_bhyve, manual_is_sound, manual_is_complete)
