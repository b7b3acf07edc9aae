/*
 * What other 9P servers shipped, and what two who race with us can do: never a byte outside the
 * export.  SKEP_RACE_SECONDS makes the races longer.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "p9/client.h"

static char top[64], dir[80];	/* the export is top/share; what must not be reached, top/out */
static struct client c;

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *f)
{
	remove(path);
	return 0;
}

static const char *at(const char *base, const char *name)
{
	static char path[4][512];
	static unsigned turn;

	turn = (turn + 1) % 4;
	snprintf(path[turn], sizeof(path[turn]), "%s/%s", base, name);
	return path[turn];
}

static void put_file(const char *path, const char *text)
{
	int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

static int begin_with(const char *options)
{
	strcpy(top, "p9-lessons-XXXXXX");
	if (!mkdtemp(top))
		return -1;
	snprintf(dir, sizeof(dir), "%s/share", top);
	assert_int_equal(mkdir(dir, 0755), 0);
	assert_int_equal(mkdir(at(top, "out"), 0755), 0);
	put_file(at(top, "out/secret"), "SECRET");
	put_file(at(top, "secret"), "SECRET");
	client_start(&c, dir, options);
	assert_int_equal(client_attach(&c, 0, 0), 0);
	return 0;
}

static int begin(void **state) { return begin_with(""); }
static int begin_none(void **state) { return begin_with("security=none"); }
static int begin_few(void **state) { return begin_with("files=24 workers=4"); }

static int end(void **state)
{
	client_stop(&c);
	nftw(top, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	return 0;
}

static void make(uint32_t fid, const char *name, const char *text)
{
	assert_int_equal(client_walk(&c, 0, fid, ""), 0);
	assert_int_equal(client_create(&c, fid, name, O_RDWR, 0644), 0);
	assert_int_equal(client_write(&c, fid, 0, text, (uint32_t)strlen(text)), (int)strlen(text));
}

/* ---- open, unlink, then fstat and ftruncate (LP#1336794) ---------------- */

static void open_unlink(void **state)
{
	struct client_attr a;
	char buf[16];

	make(1, "f", "0123456789");
	assert_int_equal(client_walk(&c, 0, 2, "f"), 0);
	assert_int_equal(client_call(&c, P9_TUNLINKAT, "dsd", 0u, "f", 0u), 0);
	/* By the open fid, and by the one that was only walked to, as older kernels do it. */
	for (uint32_t fid = 1; fid <= 2; fid++) {
		assert_int_equal(client_getattr(&c, fid, &a), 0);
		assert_int_equal(a.nlink, 0);
		assert_int_equal(client_setattr(&c, fid, P9_SET_SIZE, 0, 0, 0, 5 + fid), 0);
		assert_int_equal(client_setattr(&c, fid, P9_SET_MODE, 0600, 0, 0, 0), 0);
		assert_int_equal(client_getattr(&c, 3 - fid, &a), 0);
		assert_int_equal(a.size, 5 + fid);
	}
	assert_int_equal(client_read(&c, 1, 0, buf, 16), 7);
	assert_int_equal(client_write(&c, 1, 100, "x", 1), 1);
	/* Another file of that name is another file. */
	make(3, "f", "new");
	assert_int_equal(client_getattr(&c, 2, &a), 0);
	assert_int_equal(a.size, 101);
	assert_int_equal(client_open(&c, 2, O_RDONLY), 0);
	assert_int_equal(client_call(&c, P9_TREMOVE, "d", 2u), -ESTALE);
	assert_int_equal(access(at(dir, "f"), F_OK), 0);
}

/* A fid that was never opened, of a file whose descriptor was closed for others, then unlinked. */
static void unlink_after_reclaim(void **state)
{
	struct client_attr a;
	char name[16];

	make(1, "f", "0123456789");
	assert_int_equal(client_clunk(&c, 1), 0);
	assert_int_equal(client_walk(&c, 0, 1, "f"), 0);
	for (uint32_t i = 0; i < 40; i++) {
		snprintf(name, sizeof(name), "d%u", i);
		assert_int_equal(client_call(&c, P9_TMKDIR, "dsdd", 0u, name, 0755u, 0u), 0);
		assert_int_equal(client_walk(&c, 0, 10 + i, name), 0);
	}
	assert_int_equal(client_call(&c, P9_TUNLINKAT, "dsd", 0u, "f", 0u), 0);
	assert_int_equal(client_getattr(&c, 1, &a), 0);
	assert_int_equal(a.size, 10);
	assert_int_equal(client_setattr(&c, 1, P9_SET_SIZE, 0, 0, 0, 3), 0);
}

/* CVE-2021-20181: descriptors are taken from fids that are not in use, and it ends. */
static void reclaim(void **state)
{
	struct client_attr a;
	char name[16];

	for (uint32_t i = 0; i < 200; i++) {
		snprintf(name, sizeof(name), "d%u", i);
		assert_int_equal(client_call(&c, P9_TMKDIR, "dsdd", 0u, name, 0755u, 0u), 0);
		assert_int_equal(client_walk(&c, 0, 1 + i, name), 0);
	}
	for (uint32_t i = 0; i < 200; i += 7)
		assert_int_equal(client_getattr(&c, 1 + i, &a), 0);
	/* One was replaced on the host while nobody held it: it is stale, and not the other one. */
	assert_int_equal(rename(at(dir, "d0"), at(dir, "was")), 0);
	assert_int_equal(mkdir(at(dir, "d0"), 0755), 0);
	for (uint32_t i = 100; i < 150; i++)
		assert_int_equal(client_getattr(&c, 1 + i, &a), 0);
	assert_int_equal(client_getattr(&c, 1, &a), -ESTALE);
	assert_int_equal(client_walk(&c, 0, 900, "d0"), 0);
	assert_int_equal(client_getattr(&c, 900, &a), 0);
	/* As many open as there are descriptors, and then it says so. */
	for (uint32_t i = 1; i < 30; i++) {
		int err = client_open(&c, 1 + i, O_RDONLY);

		assert_true(err == 0 || err == -ENFILE);
		if (err) {
			assert_true(i > 10);
			break;
		}
	}
}

/* ---- CVE-2016-9602, CVE-2018-19364, CVE-2018-19489: links and renames in a race ---------- */

struct race {
	_Atomic bool stop;
	char path[512], other[512];
	unsigned turns;
};

/* A directory is a directory one moment and a link out of the export the next. */
static void *swap_thread(void *opaque)
{
	struct race *r = opaque;

	for (; !r->stop; r->turns++)
		syscall(SYS_renameat2, AT_FDCWD, r->path, AT_FDCWD, r->other, 2 /* RENAME_EXCHANGE */);
	return NULL;
}

/* The parent of where the client is moves in and out of the export. */
static void *move_thread(void *opaque)
{
	struct race *r = opaque;

	for (; !r->stop; r->turns++) {
		rename(r->path, r->other);
		rename(r->other, r->path);
	}
	return NULL;
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double race_seconds(void)
{
	const char *s = getenv("SKEP_RACE_SECONDS");

	return s ? atof(s) : 3;
}

/* Everything that takes a name, in a directory that is swapped: nothing of it may reach out. */
static unsigned try_all(uint32_t base)
{
	unsigned good = 0;
	char buf[64], name[32];
	struct client_attr a;
	int n;

	if (client_walk(&c, base, 10, "swap/secret") == 0) {
		if (client_open(&c, 10, O_RDWR) == 0) {
			n = client_read(&c, 10, 0, buf, sizeof(buf));
			assert_false(n >= 6 && !memcmp(buf, "SECRET", 6));
			if (n >= 0)
				client_write(&c, 10, 0, "inside", 6);
			good++;
		}
		client_setattr(&c, 10, P9_SET_MODE | P9_SET_SIZE, 0600, 0, 0, 6);
		client_clunk(&c, 10);
	}
	if (client_walk(&c, base, 11, "swap") == 0) {
		static unsigned serial;

		client_getattr(&c, 11, &a);
		snprintf(name, sizeof(name), "made-%u", serial++ % 16);
		if (client_call(&c, P9_TMKDIR, "dsdd", 11u, name, 0755u, 0u) == 0)
			good++;
		client_call(&c, P9_TUNLINKAT, "dsd", 11u, name, P9_UNLINK_DIR);
		client_call(&c, P9_TSYMLINK, "dssd", 11u, "link", "../../out", 0u);
		client_call(&c, P9_TUNLINKAT, "dsd", 11u, "link", 0u);
		client_call(&c, P9_TRENAMEAT, "dsds", 11u, "x", 11u, "y");
		client_call(&c, P9_TRENAMEAT, "dsds", 11u, "y", 11u, "x");
		if (client_walk(&c, 11, 12, "") == 0) {
			client_create(&c, 12, "file", O_RDWR, 0644);
			client_clunk(&c, 12);
		}
		client_call(&c, P9_TUNLINKAT, "dsd", 11u, "file", 0u);
		client_clunk(&c, 11);
	}
	return good;
}

static void check_outside(const char *where)
{
	struct stat st;
	char buf[16] = "";
	int fd = open(at(where, "secret"), O_RDONLY);

	assert_true(fd >= 0);
	assert_int_equal(read(fd, buf, sizeof(buf)), 6);
	assert_memory_equal(buf, "SECRET", 6);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0644);
	close(fd);
}

static void swap_race(void **state)
{
	struct race r = { 0 };
	pthread_t t;
	double until;
	unsigned good = 0;
	DIR *d;

	assert_int_equal(mkdir(at(dir, "swap"), 0755), 0);
	put_file(at(dir, "swap/secret"), "inside");
	put_file(at(dir, "swap/x"), "");
	assert_int_equal(symlink("../out", at(dir, "other")), 0);
	snprintf(r.path, sizeof(r.path), "%s/swap", dir);
	snprintf(r.other, sizeof(r.other), "%s/other", dir);
	pthread_create(&t, NULL, swap_thread, &r);
	for (until = seconds() + race_seconds(); seconds() < until;)
		good += try_all(0);
	r.stop = true;
	pthread_join(t, NULL);
	assert_true(good > 20);
	assert_true(r.turns > 1000);
	check_outside(at(top, "out"));
	d = opendir(at(top, "out"));
	for (struct dirent *e; (e = readdir(d));)
		assert_true(e->d_name[0] == '.' || !strcmp(e->d_name, "secret"));
	closedir(d);
}

static void move_race(void **state)
{
	struct race r = { 0 };
	struct client_attr root, a;
	pthread_t t;
	double until;

	assert_int_equal(client_getattr(&c, 0, &root), 0);
	assert_int_equal(mkdir(at(dir, "moves"), 0755), 0);
	assert_int_equal(mkdir(at(dir, "moves/deep"), 0755), 0);
	assert_int_equal(mkdir(at(dir, "moves/deep/swap"), 0755), 0);
	put_file(at(dir, "moves/deep/swap/secret"), "inside");
	snprintf(r.path, sizeof(r.path), "%s/moves", dir);
	snprintf(r.other, sizeof(r.other), "%s/moves", top);
	pthread_create(&t, NULL, move_thread, &r);
	for (until = seconds() + race_seconds() / 2; seconds() < until;) {
		/* While it is above us, ".." from within would lead to what is not ours. */
		if (client_walk(&c, 0, 20, "moves/deep") == 0) {
			assert_int_equal(client_walk(&c, 20, 21, "../../.."), 0);
			assert_int_equal(client_getattr(&c, 21, &a), 0);
			assert_int_equal(a.qid.path, root.qid.path);
			client_clunk(&c, 21);
			assert_int_not_equal(client_walk(&c, 20, 22, "../../secret"), 0);
			try_all(20);
			client_clunk(&c, 20);
		}
	}
	r.stop = true;
	pthread_join(t, NULL);
	check_outside(top);
}

static void links_are_the_clients(void **state)
{
	assert_int_equal(symlink("../out", at(dir, "to-dir")), 0);
	assert_int_equal(symlink("../secret", at(dir, "to-file")), 0);
	assert_int_equal(symlink("/proc/self/root/etc", at(dir, "magic")), 0);
	assert_int_equal(client_walk(&c, 0, 1, "to-dir/secret"), -ENOENT);
	assert_int_equal(client_walk(&c, 0, 1, "magic/passwd"), -ENOENT);
	assert_int_equal(client_walk(&c, 0, 1, "to-file"), 0);
	assert_int_equal(client_open(&c, 1, O_RDONLY), -ENXIO);
	assert_true(client_setattr(&c, 1, P9_SET_SIZE, 0, 0, 0, 0) < 0);
	client_setattr(&c, 1, P9_SET_MODE | P9_SET_UID, 0666, 5, 0, 0);
	assert_int_equal(client_call(&c, P9_TXATTRCREATE, "dsqd", 1u, "user.x", 1ull, 0u), 0);
	assert_int_equal(client_write(&c, 1, 0, "x", 1), 1);
	assert_true(client_clunk(&c, 1) < 0);
	assert_true(getxattr(at(top, "secret"), "user.x", NULL, 0) < 0);
	assert_int_equal(client_walk(&c, 0, 1, "to-file"), 0);
	assert_int_equal(client_walk(&c, 0, 2, "to-dir"), 0);
	assert_true(client_call(&c, P9_TMKDIR, "dsdd", 2u, "x", 0755u, 0u) < 0);
	assert_true(client_call(&c, P9_TUNLINKAT, "dsd", 2u, "secret", 0u) < 0);
	assert_true(client_call(&c, P9_TLINK, "dds", 2u, 1u, "x") < 0);
	assert_true(client_create(&c, 2, "x", O_RDWR, 0644) < 0);
	check_outside(top);
	check_outside(at(top, "out"));
}

/* ---- mounts below the export -------------------------------------------- */

/* In a namespace of its own: needs the right to mount. */
static void mounts(void **state)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		struct client_attr a, b;
		struct client m;

		if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
		    mkdir(at(dir, "m1"), 0755) || mkdir(at(dir, "m2"), 0755) ||
		    mount("t", at(dir, "m1"), "tmpfs", 0, NULL) || mount("t", at(dir, "m2"), "tmpfs", 0, NULL))
			_exit(77);
		/* The same inode number on two file systems. */
		put_file(at(dir, "m1/f"), "1");
		put_file(at(dir, "m2/f"), "2");
		client_start(&m, dir, "security=none");
		assert_int_equal(client_attach(&m, 0, 0), 0);
		assert_int_equal(client_walk(&m, 0, 1, "m1/f"), 0);
		assert_int_equal(client_walk(&m, 0, 2, "m2/f"), 0);
		assert_int_equal(client_getattr(&m, 1, &a), 0);
		assert_int_equal(client_getattr(&m, 2, &b), 0);
		if (a.qid.path == b.qid.path)
			_exit(1);
		assert_int_equal(client_walk(&m, 1, 3, ".."), 0);
		assert_int_equal(client_walk(&m, 0, 4, "m1"), 0);
		assert_int_equal(client_getattr(&m, 3, &a), 0);
		assert_int_equal(client_getattr(&m, 4, &b), 0);
		if (a.qid.path != b.qid.path)
			_exit(2);
		if (client_call(&m, P9_TLINK, "dds", 0u, 1u, "x") != -EXDEV)
			_exit(3);
		client_stop(&m);
		client_start(&m, dir, "security=none multidevs=forbid");
		assert_int_equal(client_attach(&m, 0, 0), 0);
		if (client_walk(&m, 0, 1, "m1") != -ENODEV)
			_exit(4);
		client_stop(&m);
		umount(at(dir, "m1"));
		umount(at(dir, "m2"));
		_exit(0);
	}
	waitpid(pid, &status, 0);
	rmdir(at(dir, "m1"));
	rmdir(at(dir, "m2"));
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip();
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* ---- security=passthrough ------------------------------------------------ */

/* Owners are the host's; the threads have no more than what that takes. */
static void passthrough(void **state)
{
	struct client_attr a;
	struct stat st;
	struct client p;

	if (geteuid())
		skip();
	client_start(&p, dir, "security=passthrough");
	assert_int_equal(client_attach(&p, 0, 1234), 0);
	assert_int_equal(client_walk(&p, 0, 1, ""), 0);
	assert_int_equal(client_create(&p, 1, "f", O_RDWR, 04751), 0);
	assert_int_equal(stat(at(dir, "f"), &st), 0);
	assert_int_equal(st.st_uid, 1234);
	assert_int_equal(st.st_mode & 07777, 04751);
	assert_int_equal(client_call(&p, P9_TMKNOD, "dsdddd", 0u, "null", S_IFCHR | 0600u, 1u, 3u, 0u), 0);
	assert_int_equal(stat(at(dir, "null"), &st), 0);
	assert_true(S_ISCHR(st.st_mode));
	assert_int_equal(client_walk(&p, 0, 2, "null"), 0);
	assert_int_equal(client_open(&p, 2, O_RDWR), -ENXIO);
	assert_int_equal(client_getattr(&p, 2, &a), 0);
	assert_true(S_ISCHR(a.mode));
	assert_int_equal(client_call(&p, P9_TSYMLINK, "dssd", 0u, "l", "../secret", 9u), 0);
	assert_int_equal(lstat(at(dir, "l"), &st), 0);
	assert_int_equal(st.st_uid, 1234);
	assert_int_equal(st.st_gid, 9);
	/* trusted.* wants CAP_SYS_ADMIN, which the threads have given up. */
	assert_int_equal(client_call(&p, P9_TXATTRCREATE, "dsqd", 1u, "trusted.x", 1ull, 0u), -EINVAL);
	assert_int_equal(client_walk(&p, 0, 3, "f"), 0);
	assert_int_equal(client_call(&p, P9_TXATTRCREATE, "dsqd", 3u, "trusted.x", 1ull, 0u), 0);
	assert_int_equal(client_write(&p, 3, 0, "x", 1), 1);
	assert_true(client_clunk(&p, 3) < 0);
	client_stop(&p);
}

/* ---- in parallel, and flushed ------------------------------------------- */

/* Many at once: each is answered once, with its tag. */
static void parallel(void **state)
{
	enum { N = 500 };
	bool seen[N] = { false };
	char text[N];

	memset(text, 'x', N);
	make(1, "f", "");
	assert_int_equal(client_write(&c, 1, 0, text, N), N);
	for (uint16_t i = 0; i < N; i++)
		client_send(&c, P9_TREAD, (uint16_t)(i + 10), "dqd", 1u, (uint64_t)i, 1u);
	for (int i = 0; i < N; i++) {
		assert_true(client_receive(&c));
		assert_int_equal(c.type, P9_TREAD + 1);
		assert_in_range(c.tag, 10, N + 9);
		assert_false(seen[c.tag - 10]);
		seen[c.tag - 10] = true;
	}
}

/* A tag that is flushed is not answered after its Rflush; whatever was flushed, all goes on. */
static void flushes(void **state)
{
	make(1, "f", "x");
	for (unsigned round = 0; round < 200; round++) {
		bool flushed[40] = { false }, answered[40] = { false };
		unsigned rflush = 0;

		for (uint16_t i = 0; i < 40; i++)
			client_send(&c, i % 3 ? P9_TFSYNC : P9_TREAD, (uint16_t)(100 + i),
				    i % 3 ? "dd" : "dqd", 1u,
				    0ull, 1u);
		for (uint16_t i = 0; i < 40; i++)
			client_send(&c, P9_TFLUSH, (uint16_t)(200 + i), "w", 100 + (39 - i));
		while (rflush < 40) {
			assert_true(client_receive(&c));
			if (c.tag >= 200) {
				assert_int_equal(c.type, P9_TFLUSH + 1);
				flushed[39 - (c.tag - 200)] = true;
				rflush++;
			} else {
				assert_false(flushed[c.tag - 100]);
				assert_false(answered[c.tag - 100]);
				answered[c.tag - 100] = true;
			}
		}
	}
	/* Of what is not there, of itself, of a Tflush; and a tag that is in use. */
	assert_int_equal(client_call(&c, P9_TFLUSH, "w", 999), 0);
	assert_int_equal(client_call(&c, P9_TFLUSH, "w", 1), 0);
	client_send(&c, P9_TFLUSH, 5, "w", 6);
	client_send(&c, P9_TFLUSH, 6, "w", 5);
	assert_true(client_receive(&c));
	assert_true(client_receive(&c));
	assert_int_equal(client_walk(&c, 0, 2, "f"), 0);
}

/* Tversion in the middle of everything. */
static void version_amid(void **state)
{
	make(1, "f", "x");
	for (int round = 0; round < 50; round++) {
		for (uint16_t i = 0; i < 50; i++)
			client_send(&c, P9_TREAD, (uint16_t)(10 + i), "dqd", 1u, 0ull, 1u);
		client_send(&c, P9_TVERSION, P9_NOTAG, "ds", 8192u, "9P2000.L");
		do
			assert_true(client_receive(&c));
		while (c.tag != P9_NOTAG);
		assert_int_equal(c.type, P9_TVERSION + 1);
		assert_int_equal(client_call(&c, P9_TATTACH, "ddssd", 0u, P9_NOFID, "", "", 0u), 0);
		assert_int_equal(client_walk(&c, 0, 1, "f"), 0);
		assert_int_equal(client_open(&c, 1, O_RDONLY), 0);
	}
}

/* A client that does not take its answers holds up nobody else. */
static void deaf_client(void **state)
{
	struct client d;
	char text[256] = "";

	make(1, "f", text);
	assert_int_equal(client_setattr(&c, 1, P9_SET_SIZE, 0, 0, 0, 1 << 20), 0);
	client_join(&d, &c);
	assert_int_equal(client_attach(&d, 0, 0), 0);
	assert_int_equal(client_walk(&d, 0, 1, "f"), 0);
	assert_int_equal(client_open(&d, 1, O_RDONLY), 0);
	for (uint16_t i = 0; i < 60; i++)
		client_send(&d, P9_TREAD, i, "dqd", 1u, 0ull, 1u << 19);
	for (int i = 0; i < 100; i++)
		assert_int_equal(client_read(&c, 1, 0, text, 10), 10);
	client_stop(&d);
}

#define T(f)	cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(open_unlink), cmocka_unit_test_setup_teardown(unlink_after_reclaim, begin_few, end),
		cmocka_unit_test_setup_teardown(reclaim, begin_few, end),
		T(swap_race), cmocka_unit_test_setup_teardown(move_race, begin_none, end),
		T(links_are_the_clients), T(mounts), T(passthrough),
		T(parallel), T(flushes), T(version_amid), T(deaf_client),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
