"""Debian's two kernels to a shell that behaves like one."""
import re
import time

from lib import POWEROFF, PROMPT, REBOOT, linux, run


def shell(flavour):
    with linux(flavour, "quiet") as m:
        m.expect("skep: userspace reached", 200)
        m.expect(PROMPT, 60)
        assert "/dev/ttyS0" in m.command("tty")
        assert m.command("echo $((6 * 7))").strip() == "42"
        assert "skep" in m.command("hostname")
        # The guest's clock starts from ours through the RTC, which counts whole seconds.
        now = int(re.search(r"\d{9,}", m.command("date +%s"))[0])
        assert abs(now - time.time()) < 60, f"the guest thinks it is {now}"
        assert "Linux version" in m.command("dmesg | head -n 3")
        # Job control: ^C ends a program and not the shell, ^Z stops one.
        m.send("sleep 1000\n")
        time.sleep(2)
        m.send("\x03")
        m.expect(PROMPT, 30)
        m.send("sleep 1000\n")
        time.sleep(2)
        m.send("\x1a")
        m.expect("Stopped", 30)
        m.expect(PROMPT, 30)
        assert "Stopped" in m.command("jobs")
        m.command("kill %1")
        return m.command("uname -r")


def cloud_shell_poweroff():
    with linux("cloud", "quiet") as m:
        m.expect(PROMPT, 200)
        m.send("poweroff\n")
        m.exits(POWEROFF, 60)


def cloud_shell():
    release = shell("cloud")
    assert "cloud-amd64" in release


def generic_shell():
    release = shell("generic")
    assert "amd64" in release and "cloud" not in release


def reboot_typed():
    with linux("cloud", "quiet") as m:
        m.expect(PROMPT, 200)
        m.send("reboot\n")
        m.exits(REBOOT, 60)


run(cloud_shell, cloud_shell_poweroff, generic_shell, reboot_typed)
