"""A shared directory in skep and in QEMU (-virtfs local, security_model=mapped-xattr): the same kernel,
initramfs, mount options and commands, one machine after the other; by the guest's own clock.

  p9_write, p9_read		256 MiB by dd in blocks of 1 MiB, the best of five
  p9_untar			10,000 small files in 200 directories, from the guest's memory
  p9_find, p9_ls		find -type f and ls -lR of them
  p9_grep			all of them read
  p9_git_status			of a repository with them in its work tree and its index, the best of three
  p9_rm				rm -r

P9_FILES is another number of files.
"""
import os
import re
import subprocess
import sys
import tempfile

from common import BENCH, BUILD, Failed, PAIRS, QEMU, SKEP, TOP, faster, log

FILES = int(os.environ.get("P9_FILES", "10000"))
MEGABYTES = 256
MODULES = "virtio_pci 9pnet_virtio 9p"
MOUNT = "mkdir -p /mnt/h; mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 share /mnt/h"
# The objects in the guest's memory: what is measured is the look at the work tree.
GIT = ("export PATH=/usr/bin:/bin:/sbin GIT_CONFIG_GLOBAL=/tmp/gitconfig GIT_OBJECT_DIRECTORY=/tmp/objects; "
       "git config --global user.email b@example.org; git config --global user.name b")
MAKE = (f"mkdir /tmp/t; cd /tmp/t; i=0; while [ $i -lt {FILES} ]; do echo $i >f$i; i=$((i+1)); "
        "[ $((i%50)) = 0 ] && mkdir d$i && mv f* d$i; done; tar -c -f /tmp/t.tar .; cd /mnt/h; rm -rf /tmp/t; "
        "mkdir u")
STAGE = ("mkdir -p /tmp/objects; cd u; git init -q .; git config gc.auto 0; git add -A; git commit -q -m all; "
         "sleep 1; git status; cd ..")
# name: (what comes before, what is measured, how often, how many times QEMU's speed is promised)
CASES = {
    "p9_write": ("rm -f z", f"dd if=/dev/zero of=z bs=1M count={MEGABYTES}", 5, 1),
    "p9_read": (f"[ -s z ] || dd if=/dev/zero of=z bs=1M count={MEGABYTES}", "dd if=z of=/dev/null bs=1M", 5, 1),
    "p9_untar": (MAKE, "tar -x -f /tmp/t.tar -C u", 1, 1.3),
    "p9_find": ("true", "find u -type f", 1, 1.3),
    "p9_ls": ("true", "ls -lR u", 1, 1.3),
    "p9_grep": ("true", "grep -r nothing u", 1, 1.3),
    "p9_git_status": ("[ -d u/.git ] || { " + STAGE + "; }", "git -C u status", 3, 1.3),
    "p9_rm": ("true", "rm -r u", 1, 1.3),
}
PARTS = list(CASES)
ALONE = ("p9_write", "p9_read")     # that the files of p9_untar do not matter to
TIME = re.compile(r"real\s+(\d+)m\s*([0-9.]+)s")
PATIENCE = 600


def _prepare():
    """(kernel, initrd with git)."""
    for what in (["fetch-kernel", "generic"], ["fetch-programs", "git"]):
        if subprocess.run([os.path.join(TOP, "scripts", what[0]), what[1]]).returncode:
            raise Failed(f"scripts/{' '.join(what)} could not fetch from Debian through apt")
    os.makedirs(BENCH, exist_ok=True)
    initrd = os.path.join(BENCH, "p9.gz")
    subprocess.run([os.path.join(TOP, "scripts/mkinitramfs"), "-m", MODULES, initrd, "generic",
                    os.path.join(TOP, "tests/e2e/tree"), os.path.join(BUILD, "guest/programs-git")], check=True)
    return os.path.join(BUILD, "guest/generic/vmlinuz"), initrd


def _argv(peer, kernel, initrd, d):
    append = "console=ttyS0 quiet"
    if peer:
        return [QEMU, "-accel", "tcg", "-machine", "q35", "-smp", "1", "-m", "1G", "-nodefaults",
                "-no-user-config", "-display", "none", "-serial", "stdio", "-cpu", "max",
                "-virtfs", f"local,path={d},mount_tag=share,security_model=mapped-xattr,multidevs=remap",
                "-kernel", kernel, "-initrd", initrd, "-append", append]
    return [SKEP, "run", "-c", "1", "-m", "1G", "-s", "0,hostbridge", "-s", "31,lpc", "-l", "com1,stdio",
            "-o", "control=none", "-s", f"5,virtio-9p,share={d}", "--kernel", kernel, "--initrd", initrd,
            "--append", append, "bench"]


def _measure(argv, names):
    sys.path.insert(0, os.path.join(TOP, "tests/e2e"))
    import lib          # takes a scratch directory when it is imported: not for parts that need none
    times = {}
    with lib.Machine(argv=argv) as m:
        m.expect(lib.PROMPT, 300)
        m.command(f"{MOUNT}; {GIT}", 200)
        for name in names:
            before, what, often, _ = CASES[name]
            for _ in range(often):
                m.command(f"cd /mnt/h; {before} >/dev/null; cd ~", PATIENCE)
                out = m.command(f"cd /mnt/h; (time {what} >/dev/null) 2>&1; echo \"=$?\"; cd ~", PATIENCE)
                found = TIME.search(out)
                # grep says 1: it has found nothing.
                if not found or ("=1" if name == "p9_grep" else "=0") not in out:
                    raise Failed(f"{name}: {out[-400:]}")
                seconds = 60 * int(found.group(1)) + float(found.group(2))
                times[name] = min(seconds, times.get(name, seconds))
        m.kill()
    return times


def take(table, wanted):
    """Adds the rows among those wanted to the table."""
    names = [n for n in PARTS if n in wanted]
    needs = [n for n in PARTS if n in names or n == "p9_untar" and set(names) - set(ALONE)]
    where = _prepare()
    ours, theirs = [], []
    for i in range(PAIRS):
        log(f"p9: pair {i + 1} of {PAIRS}")
        for peer, to in ((False, ours), *(((True, theirs),) if QEMU else ())):
            with tempfile.TemporaryDirectory() as d:
                try:
                    to.append(_measure(_argv(peer, *where, d), needs))
                except AssertionError as e:
                    raise Failed(f"p9, {'QEMU' if peer else 'skep'}: {e}") from None
    for n in names:
        table.add(n, "s", [r[n] for r in ours], [r[n] for r in theirs], limit=faster(CASES[n][3]))
