"""A directory of the host in Debian's generic kernel by virtio-9p, and on a socket by skep 9pserve."""
import hashlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import tarfile

from lib import (ERROR, HERE, LONG, POWEROFF, PROMPT, SKEP, SUSPENDED, Machine, Skip, command, linux,
                 run, scratch)

MODULES = ("virtio_pci", "9pnet_virtio", "9p")
OPTIONS = "trans=virtio,version=9p2000.L,msize=512000"


def posix():
    """The guest's program, as one file that needs no other."""
    out = os.path.join(scratch(), "posix")
    if not os.path.exists(out):
        subprocess.run(["cc", "-static", "-O1", "-o", out, os.path.join(HERE, "p9/posix.c")], check=True)
    return out


def share(name):
    d = os.path.join(scratch(), name)
    os.makedirs(d)
    shutil.copy(posix(), d)
    return d


def guest(d, more="", *args, cache="none", cpus="1", **kw):
    m = linux("generic", "quiet", "-c", cpus, "-s", f"5,virtio-9p,share={d}{more}", *args, modules=MODULES,
              **kw)
    m.expect(PROMPT)
    out = m.command(f"mkdir -p /mnt/host; mount -t 9p -o {OPTIONS},cache={cache} share /mnt/host; echo $?", 200)
    if out.split()[-1:] != ["0"]:
        m.fail(f"mount: {out}")
    m.command(r"PS1=skep:~\#\ ; cd /mnt/host", 200)   # the prompt that all wait for
    return m


def ask(m, line, timeout=300):
    """The command's output; it must end with 0."""
    out = m.command(f"{line}; echo \"=$?\"", timeout)
    if out.split("=")[-1].split()[:1] != ["0"]:
        m.fail(f"{line}: {out}")
    return out.rsplit("=", 1)[0]


def off(m):
    m.send("cd /; umount /mnt/host; poweroff\n")
    m.exits(POWEROFF, 60)


def posix_with(name, more="", cache="none"):
    d = share(name)
    with guest(d, more, cache=cache) as m:
        out = ask(m, "mkdir w; ./posix w", 400)
        assert " 0 wrong" in out, out
        off(m)


def posix_mapped():
    posix_with("mapped")


def posix_loose():
    posix_with("loose", cache="loose")


def posix_passthrough():
    if os.geteuid():
        raise Skip("security=passthrough needs root")
    posix_with("passthrough", ",security=passthrough")


def what_the_host_has():
    """Both sides see the same; the host's files stay the server's own."""
    d = share("both")
    with open(os.path.join(d, "from-host"), "w") as f:
        f.write("host\n")
    os.symlink("from-host", os.path.join(d, "link"))
    with guest(d) as m:
        assert ask(m, "cat link").strip() == "host"
        ask(m, "echo guest >from-guest; chown 1000:1000 from-guest; chmod 4755 from-guest; ln -s /etc/passwd l")
        ask(m, "mknod null c 1 3; echo x >null")
        assert "-rwsr-xr-x" in ask(m, "ls -l from-guest")
        off(m)
    st = os.stat(os.path.join(d, "from-guest"))
    assert st.st_mode & 0o7777 == 0o600 and st.st_uid == os.geteuid(), oct(st.st_mode)
    assert os.path.isfile(os.path.join(d, "null")) and not os.path.islink(os.path.join(d, "l"))


def read_only():
    d = share("ro")
    with guest(d, ",ro") as m:
        assert "Read-only" in m.command("echo x >f; true")
        assert "Read-only" in m.command("rm posix; true")
        off(m)
    assert sorted(os.listdir(d)) == ["posix"]


def tree_hash(top):
    h = hashlib.sha256()
    for root, dirs, files in sorted(os.walk(top)):
        dirs.sort()
        for f in sorted(files):
            with open(os.path.join(root, f), "rb") as fd:
                h.update(f.encode() + fd.read())
    return h.hexdigest()


def parallel_tar():
    """Four at once, on two processors: what is packed and unpacked is what it was."""
    d = share("tar")
    src = os.path.join(d, "src")
    for i in range(20):
        os.makedirs(os.path.join(src, f"d{i}"))
        for k in range(15):
            with open(os.path.join(src, f"d{i}", f"f{k}"), "wb") as f:
                f.write(os.urandom(100 * k * k))
    with guest(d, cpus="2") as m:
        ask(m, "for i in 1 2 3 4; do (mkdir o$i; tar -c -f - -C src . | tar -x -f - -C o$i) & done; wait", 200)
        ask(m, "rm -r o4")
        off(m)
    want = tree_hash(src)
    for i in (1, 2, 3):
        assert tree_hash(os.path.join(d, f"o{i}")) == want, f"o{i} is not what src is"
    assert not os.path.exists(os.path.join(d, "o4"))


def snap(name):
    return os.path.join(scratch(), name + ".skep")


def skep(*argv):
    code, out = command(*argv, timeout=200)
    assert code == 0, f"skep {' '.join(argv)} ended with {code}: {out[-600:]}"
    return out


def across_restores():
    """Random reads and writes go on over checkpoints, and over a suspend into another process."""
    d = share("across")
    with guest(d) as m:
        m.send("mkdir w; ./posix -n 12000 w; echo \"=$?\"\n")
        m.expect("model 1000", 300)
        skep("save", "--live", "e2e", snap("first"))
        m.expect("model 2000", 60)
        skep("save", "--suspend", "e2e", snap("second"))
        m.exits(SUSPENDED, 60)
    with Machine(argv=[SKEP, "restore", snap("second")]) as m:
        m.expect("model 4000", 300)
        skep("save", "--suspend", "e2e", snap("third"))
        m.exits(SUSPENDED, 60)
    with Machine(argv=[SKEP, "restore", snap("third")]) as m:
        out = m.expect("=0", 200)
        assert " 0 wrong" in out, out
        m.expect(PROMPT)
        off(m)


def replaced_while_suspended():
    """The guest gets ESTALE for the file that is another one now, and goes on with the others."""
    d = share("replaced")
    with guest(d) as m:
        ask(m, "echo one >a; echo two >b")
        ask(m, "exec 3<>a 4<>b")
        skep("save", "--suspend", "e2e", snap("replaced"))
        m.exits(SUSPENDED, 60)
    with open(os.path.join(d, "new"), "w") as f:
        f.write("not yours\n")
    os.rename(os.path.join(d, "new"), os.path.join(d, "a"))
    with Machine(argv=[SKEP, "restore", snap("replaced")]) as m:
        m.send("\n")
        m.expect(PROMPT)
        assert "tale" in m.command("cat <&3; true")
        assert "two" in m.command("cat <&4; true")
        assert "'a' in the share is not the file" in m.stderr(), m.stderr()
        # While it has the old one open, Linux takes the name for that; then it is the new one's.
        assert "not yours" in m.command("exec 3<&- 4<&-; cat a; true")
        off(m)


def another_place():
    """The share may lie elsewhere when the machine is restored."""
    d = share("here")
    with guest(d) as m:
        ask(m, "echo one >a")
        skep("save", "--suspend", "e2e", snap("moved"))
        m.exits(SUSPENDED, 60)
    there = os.path.join(scratch(), "there")
    os.rename(d, there)
    with Machine(argv=[SKEP, "restore", "-o", f"pci.0.5.0.path={there}", snap("moved")]) as m:
        m.send("\n")
        m.expect(PROMPT)
        assert "one" in m.command("cat a")
        off(m)


def unlinked_is_said():
    d = share("unlinked")
    with guest(d) as m:
        ask(m, "echo kept >gone; exec 3<gone; rm gone")
        skep("save", "e2e", snap("unlinked"))
        assert "kept" in m.command("cat <&3")
        assert "'gone' in the share is open but has no name" in m.stderr(), m.stderr()
        off(m)


def exact():
    """clock.mode=virtual: two runs that use the share are alike, and end at the same instruction."""
    seen = []
    for i in range(2):
        d = share(f"exact{i}")
        stats = os.path.join(scratch(), f"exact{i}.json")
        with linux("generic", "quiet", "-o", "clock.mode=virtual", "-s", f"5,virtio-9p,share={d}",
                   "--stats", stats, modules=MODULES) as m:
            m.expect(PROMPT, 300)
            m.kill()
        seen.append(m.text)
    assert seen[0] == seen[1]


def refusals():
    for args, what in (("5,virtio-9p", "-s SLOT,virtio-9p,NAME=/directory"),
                       ("5,virtio-9p,host=/nonexistent", "/nonexistent"),
                       ("5,virtio-9p,host=/tmp,security=root", "security"),
                       ("5,virtio-9p,host=/tmp,map=1:2", "map"),
                       ("5,virtio-9p,host=/tmp,squish=1", "squash"),
                       ("5,virtio-9p,host=/etc/passwd", "Not a directory")):
        code, out = command("run", "-s", args, "--kernel", "/dev/null", "-o", "control=none", "refused")
        assert code == ERROR and what in out, (args, code, out)


def serve(d, *options):
    p = subprocess.Popen([SKEP, "9pserve", d, "--listen", "tcp:127.0.0.1:0", *options],
                         stdout=subprocess.PIPE, text=True)
    return p, int(p.stdout.readline().rsplit(":", 1)[1])


def on_a_socket():
    """Tversion and Tattach by hand, another client at the same time, and an end by SIGTERM."""
    d = share("socket")
    p, port = serve(d, "ro")
    try:
        for _ in range(3):
            s = socket.create_connection(("127.0.0.1", port), 10)
            body = struct.pack("<IH", 8192, 8) + b"9P2000.L"
            s.sendall(struct.pack("<IBH", 7 + len(body), 100, 0xffff) + body)
            answer = s.recv(100)
            assert answer[4] == 101 and answer.endswith(b"9P2000.L"), answer
            s.sendall(b"\xff\xff\xff\xff garbage")
            assert s.recv(100) == b""
    finally:
        p.send_signal(signal.SIGTERM)
        assert p.wait(10) == 0
    code, out = command("9pserve", "/nonexistent")
    assert code == ERROR and "/nonexistent" in out, out


if __name__ == "__main__":
    run(refusals, on_a_socket, what_the_host_has, read_only, posix_mapped, parallel_tar, across_restores,
        replaced_while_suspended, another_place, unlinked_is_said,
        *((posix_loose, posix_passthrough, exact) if LONG else ()))
