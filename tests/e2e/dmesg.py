"""The kernel warns of nothing in skep that it does not warn of in QEMU too.

The reference is QEMU's q35 with its TCG processor, booted now, with the same kernel: its warnings
are the list of what is allowed.  Numbers are taken out of both before they are compared.
"""
import re
import shutil
import subprocess

from lib import Skip, guest_test, initrd, kernel, run

def normalised(lines):
    out = {}
    for line in lines:
        line = re.sub(r"^.*?WARN ", "", line.strip())
        line = re.sub(r"0x[0-9a-f]+|\b[0-9a-f]{8,}\b", "#", line)
        line = re.sub(r"\b[0-9a-f]{2,4}:[0-9a-f]{2}(:[0-9a-f]{2})?(\.\d)?\b", "#", line)
        line = re.sub(r"\d+", "#", line)
        if line:
            out[line] = out.get(line, 0) + 1
    return out


def warnings(text):
    return normalised(l for l in text.splitlines() if "WARN " in l)


def in_qemu(flavour):
    qemu = shutil.which("qemu-system-x86_64")
    if not qemu:
        raise Skip("qemu-system-x86_64, whose warnings are the reference")
    p = subprocess.run([qemu, "-accel", "tcg", "-M", "q35", "-m", "512M", "-display", "none",
                        "-serial", "stdio", "-no-reboot", "-nic", "none", "-vga", "none",
                        "-kernel", kernel(flavour), "-initrd", initrd(flavour),
                        "-append", "console=ttyS0 quiet skep.test=dmesg"],
                       stdin=subprocess.DEVNULL, capture_output=True, timeout=240)
    text = p.stdout.decode(errors="replace")
    assert "skep: test dmesg ended with 0" in text, f"the reference did not boot:\n{text[-2000:]}"
    return warnings(text)


def compare(flavour):
    ours = warnings(guest_test(flavour, "dmesg", timeout=240))
    reference = in_qemu(flavour)
    print(f"# {flavour}: {len(ours)} kinds of warnings here, {len(reference)} in QEMU")
    new = [line for line in ours if line not in reference]
    for line in new:
        print(f"# only here: {line}")
    assert not new, f"{len(new)} warnings that QEMU does not give, such as: {new[0]}"


def cloud():
    compare("cloud")


def generic():
    compare("generic")


run(cloud, generic)
