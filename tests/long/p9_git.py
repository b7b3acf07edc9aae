"""git, make and a compiler at work in a shared directory, and tar beside them: in Debian's generic kernel,
undisturbed, and while the machine is checkpointed, suspended and restored under them.

The repository is the host's; what the guest makes of it is looked at from both sides.
"""
import os
import random
import subprocess
import sys

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, os.path.join(TOP, "tests", "e2e"))
import lib          # noqa: E402
import p9           # noqa: E402

FILES = int(os.environ.get("SKEP_TEST_FILES", "60"))
ROUNDS = 3
PATIENCE = 900
GIT = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null",
       "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@example.org", "GIT_COMMITTER_NAME": "t",
       "GIT_COMMITTER_EMAIL": "t@example.org"}
# One round: all that a developer does, with a commit of the guest's own, and four trees through tar.
SCRIPT = """set -e
export PATH=/usr/bin:/bin:/sbin:/usr/sbin HOME=/tmp
git config --global --replace-all safe.directory '*'
git config --global user.name guest
git config --global user.email guest@example.org
round() {
	rm -rf work$1
	git clone -q origin work$1
	for i in 1 2 3 4; do
		(rm -rf out$1.$i; mkdir out$1.$i; tar -c -f - -C work$1 .git | tar -x -f - -C out$1.$i) &
		eval p$i=$!
	done
	cd work$1
	make -s -j3 CC=tcc
	./program
	[ -z "$(git status --porcelain)" ]
	echo changed >>f0.c
	[ "$(git status --porcelain)" = " M f0.c" ]
	git checkout -q f0.c
	echo of the guest >added
	git add added
	git commit -q -m guest
	git fsck --full --strict
	git gc -q
	git fsck --full --strict
	make -s clean
	[ -z "$(git status --porcelain)" ]
	cd ..
	for p in $p1 $p2 $p3 $p4; do wait $p; done
	echo "round $1 is done"
}
for r in $(seq $1); do round $r; done
echo all rounds are done
"""


def initrd():
    """The initramfs with git, make and tcc; made once."""
    path = os.path.join(lib.scratch(), "git.gz")
    if not os.path.exists(path):
        p = subprocess.run([os.path.join(TOP, "scripts/fetch-programs"), "git"], capture_output=True, text=True)
        if p.returncode:
            raise lib.Skip((p.stderr.strip().splitlines() or ["programs"])[-1])
        lib.kernel("generic")
        subprocess.run([os.path.join(TOP, "scripts/mkinitramfs"), "-m", " ".join(p9.MODULES), path, "generic",
                        os.path.join(lib.HERE, "tree"), os.path.join(lib.GUEST, "programs-git")], check=True)
    return path


def git(d, *argv):
    p = subprocess.run(["git", "-C", d, "-c", "safe.directory=*", *argv], env=GIT, capture_output=True, text=True)
    assert p.returncode == 0, f"git {' '.join(argv)}: {p.stderr[-500:]}"
    return p.stdout


def repository(d):
    """A program of FILES sources in a few commits; returns what it prints."""
    rng, total, own = random.Random(FILES), 0, [f"f{i}" for i in range(FILES)]
    os.makedirs(d)
    git(d, "init", "-q", "-b", "main")
    for i, f in enumerate(own):
        n = rng.randrange(1 << 20)
        total += n
        with open(os.path.join(d, f + ".c"), "w") as out:
            out.write(f"#include <stdio.h>\n#include <stdlib.h>\nlong {f}(void)\n{{\n\treturn {n};\n}}\n")
            out.write("".join(f"/* {rng.getrandbits(256):x} */\n" for _ in range(rng.randrange(200))))
        if i % 10 == 9:
            git(d, "add", ".")
            git(d, "commit", "-q", "-m", f"{i}")
    with open(os.path.join(d, "main.c"), "w") as out:
        out.write("#include <stdio.h>\n" + "".join(f"long {f}(void);\n" for f in own))
        out.write(f"int main(void)\n{{\n\tprintf(\"sum %ld\\n\", {' + '.join(f + '()' for f in own)});\n}}\n")
    with open(os.path.join(d, "Makefile"), "w") as out:
        out.write(f"OBJ = main.o {' '.join(f + '.o' for f in own)}\nprogram: $(OBJ)\n\t$(CC) -o $@ $(OBJ)\n"
                  "%.o: %.c\n\t$(CC) -c -o $@ $<\nclean:\n\trm -f program *.o\n")
    with open(os.path.join(d, ".gitignore"), "w") as out:
        out.write("*.o\nprogram\n")
    git(d, "add", ".")
    git(d, "commit", "-q", "-m", "all")
    return f"sum {total}"


def share(name):
    d = os.path.join(lib.scratch(), name)
    os.makedirs(d)
    want = repository(os.path.join(d, "origin"))
    with open(os.path.join(d, "work"), "w") as f:
        f.write(SCRIPT)
    return d, want


def begin(d, rounds):
    m = lib.Machine("-c", "2", "-s", f"5,virtio-9p,share={d}", "--kernel", lib.kernel("generic"), "--initrd",
                    initrd(), "--append", "console=ttyS0 quiet", ram="1G")
    m.expect(lib.PROMPT, 300)
    out = m.command(f"mkdir -p /mnt/host; mount -t 9p -o {p9.OPTIONS} share /mnt/host; echo $?", 200)
    if out.split()[-1:] != ["0"]:
        m.fail(f"mount: {out}")
    m.send(f"cd /mnt/host; sh work {rounds}; cd /; umount /mnt/host; poweroff\n")
    return m


def finish(m):
    out = m.expect("all rounds are done", PATIENCE)
    m.exits(lib.POWEROFF, 100)
    return out


def look(d, want, said, rounds):
    """The program printed its sum in each round; the host finds the same as the guest in what is left."""
    assert said.count(want) == rounds, f"{said.count(want)} times {want!r} in {said[-1500:]!r}"
    for r in range(1, rounds + 1):
        work = os.path.join(d, f"work{r}")
        git(work, "fsck", "--full", "--strict")
        assert git(work, "log", "-1", "--format=%an %s").strip() == "guest guest"
        head = git(work, "rev-parse", "HEAD^").strip()
        assert head == git(os.path.join(d, "origin"), "rev-parse", "HEAD").strip()
        assert not git(work, "-c", "core.fileMode=false", "status", "--porcelain").strip()
        for i in range(1, 5):
            assert os.path.isdir(os.path.join(d, f"out{r}.{i}", ".git")), f"tar {i} of round {r}"
            git(os.path.join(d, f"out{r}.{i}"), "cat-file", "-e", head)


def undisturbed():
    d, want = share("undisturbed")
    with begin(d, 1) as m:
        said = m.expect("round 1 is done", PATIENCE)
        finish(m)
    look(d, want, said, 1)


def across_restores():
    """A checkpoint within the clone, a suspend within the build, and both again in the next rounds."""
    d, want = share("across")
    snap, said = os.path.join(lib.scratch(), "git.skep"), ""
    m = begin(d, ROUNDS)
    for r in range(1, ROUNDS + 1):
        # One that is restored takes up where the other stopped, and each prints its own part.
        with m:
            wait_for(os.path.join(d, f"work{r}"), m)
            lib.skep("save", "--live", "e2e", snap)
            wait_for(os.path.join(d, f"work{r}", f"f{FILES // 2}.o"), m)
            lib.skep("save", "e2e", snap)
            lib.skep("save", "--suspend", "e2e", snap)
            m.exits(lib.SUSPENDED, 60)
            said += m.text.decode(errors="replace")
        m = lib.Machine(argv=[lib.SKEP, "restore", snap])
        if r < ROUNDS:
            said += m.expect(f"round {r} is done", PATIENCE)
            m.text, m.at = b"", 0
    with m:
        finish(m)
        said += m.text.decode(errors="replace")
    look(d, want, said, ROUNDS)


def wait_for(path, m):
    """The guest has made it; what it prints meanwhile is kept."""
    for _ in range(PATIENCE * 10):
        if os.path.exists(path):
            return
        m._read(0.1)
    m.fail(f"{path} is not there")


if __name__ == "__main__":
    lib.run(undisturbed, across_restores)
