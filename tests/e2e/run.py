"""What `make run` does, by its script: a Debian root file system on a disk, with a network, to a login prompt;
what is written to the disk stays; memory and disk are saved together; and the shell without a disk."""
import os
import shutil
import subprocess

from lib import (GUEST, POWEROFF, PROMPT, SKEP, TOP, Machine, Skip, command, guest_locked, kernel, run,
                 scratch, skep)

PATH = os.environ["PATH"]
OVERLAY = os.path.join(scratch(), "run.overlay")


@guest_locked
def image():
    """The disk is there."""
    p = subprocess.run([os.path.join(TOP, "scripts/fetch-debian")], capture_output=True, text=True)
    if p.returncode:
        raise Skip(f"Debian's root file system: {(p.stderr.strip().splitlines() or ['?'])[-1]}")


class Script(Machine):
    """scripts/run and the machine that it started, which is not its process."""

    def __init__(self, top=TOP, **env):
        self.before = dict(os.environ)
        os.environ.update(SKEP_OVERLAY=OVERLAY, SKEP_NAME="run", **env)
        kernel(env.get("KERNEL", "cloud"))
        super().__init__(argv=[os.path.join(top, "scripts/run")])

    def kill(self):
        if self.p.poll() is None:
            command("stop", "--force", "--wait", "run")
        super().kill()

    def __exit__(self, *args):
        super().__exit__(*args)
        os.environ.clear()
        os.environ.update(self.before)

    def command(self, line, timeout=60):
        """Past bash's bracketed paste, too."""
        return super().command(line, timeout).replace("\x1b[?2004l", "").replace("\x1b[?2004h", "")

    def login(self):
        self.expect("root needs no password")
        self.expect("skep login: ")
        self.send("root\n")
        self.expect(PROMPT)


def debian():
    image()
    with Script() as m:
        m.login()
        out = m.command("ping -c 2 -W 5 10.0.2.2")
        assert "2 received" in out, out
        # A Debian by its own account, on the disk, whose files are root's and whose commands are whole.
        out = m.command("cat /etc/debian_version; findmnt -no SOURCE,FSTYPE /; stat -c %U:%G:%a / /root /etc/shadow "
                        "/usr/bin/passwd; dpkg-query -W -f '${db:Status-Abbrev} ${Package}\\n' coreutils libc6")
        for want in ("12.", "/dev/vda ext4", "root:root:755", "root:root:700", "root:shadow:640", "root:root:4755",
                     "ii  coreutils", "ii  libc6"):
            assert want in out, f"{want}: {out}"
        out = m.command("dpkg --audit; dpkg -V login | grep -v ' /usr/share/'; ls -l /proc/1/exe")
        assert "busybox" in out.strip().splitlines()[0], out
        m.command("echo what was written >/root/file; sync")
        m.send("poweroff\n")
        m.exits(0)
    with Script() as m:
        m.login()
        assert "what was written" in m.command("cat /root/file")
        # Memory and disk of one moment, as README tells: what comes after it is gone.
        saved = os.path.join(scratch(), "run.skep")
        skep("save", "--disks", "run", saved)
        m.command("echo else >/root/file; sync; echo 3 >/proc/sys/vm/drop_caches")
        skep("verify", saved)
    with Machine(argv=[SKEP, "restore", saved]) as m:
        m.send("\n")
        m.expect(PROMPT)
        m.command("echo 3 >/proc/sys/vm/drop_caches")
        out = m.command("cat /root/file; ping -c 1 -W 5 10.0.2.2")
        assert "what was written" in out and "1 received" in out, out
        m.send("poweroff\n")
        m.exits(POWEROFF)


def generic():
    """linux-image-amd64, which has modules for what the cloud kernel has built in, and shares a directory."""
    image()
    with Script(KERNEL="generic") as m:
        m.login()
        assert "# skep" in m.command("head -n 1 /mnt/host/README.md")
        out = m.command("cd /mnt/host/build/guest; touch .run; ls $PWD/.run; rm .run; cd; "
                        "ping -c 1 -W 5 host; findmnt -no FSTYPE /")
        assert "build/guest/.run\n" in out and "1 received" in out and "ext4" in out, out
        # The power button, as a supervisor presses it.
        skep("stop", "run")
        m.exits(0)


def initramfs():
    with Script(ROOT="initramfs") as m:
        m.expect("with busybox")
        m.expect(PROMPT)
        assert "no disk" in m.command("test -e /dev/vda || echo no disk")
        m.send("reboot -f\n")      # and again
        m.expect("with busybox")
        m.expect(PROMPT)
        m.send("poweroff -f\n")
        m.exits(0)


def unreachable():
    """Where apt cannot be reached there is a shell without a disk, and one line that says why."""
    kernel("cloud")
    top = os.path.join(scratch(), "top")
    guest = os.path.join(top, "build/guest")
    os.makedirs(os.path.join(guest, "cloud"))
    shutil.copytree(os.path.join(TOP, "scripts"), os.path.join(top, "scripts"))
    for name in ("busybox", "cloud/vmlinuz", "cloud/release", "cloud/modules", "cloud/kernel"):
        os.symlink(os.path.join(GUEST, name), os.path.join(guest, name))
    apt = os.path.join(scratch(), "bin/apt-get")
    os.mkdir(os.path.dirname(apt))
    with open(apt, "w") as f:
        f.write("#!/bin/sh\necho 'E: no network' >&2\nexit 100\n")
    os.chmod(apt, 0o755)
    with Script(top, SKEP=SKEP, PATH=f"{os.path.dirname(apt)}:{PATH}") as m:
        m.expect("No Debian root file system here, so this is a shell without one: apt could not fetch its "
                 "packages (E: no network)\n", 20)
        m.expect("with busybox")
        m.expect(PROMPT)
        m.send("poweroff -f\n")
        m.exits(0)
    left = sorted(os.listdir(guest))
    assert left == ["busybox", "cloud"], left


def bad_root():
    p = subprocess.run([os.path.join(TOP, "scripts/run")], capture_output=True, text=True,
                       env=dict(os.environ, ROOT="/dev/sda"))
    assert p.returncode == 4 and "ROOT is debian or initramfs" in p.stderr, p.stdout + p.stderr


run(debian, generic, initramfs, unreachable, bad_root)
