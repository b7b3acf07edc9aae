/* The 9P server, every message of 9P2000.L: what it answers when it is asked rightly, and wrongly. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "p9/client.h"

static char dir[64];
static struct client c;

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *f)
{
	remove(path);
	return 0;
}

static int begin_with(const char *options)
{
	strcpy(dir, "p9-test-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	client_start(&c, dir, options);
	assert_int_equal(client_attach(&c, 0, 0), 0);
	return 0;
}

static int begin(void **state) { return begin_with(""); }
static int begin_none(void **state) { return begin_with("security=none"); }
static int begin_small(void **state) { return begin_with("fids=16 files=16 workers=1"); }

static int end(void **state)
{
	client_stop(&c);
	nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	return 0;
}

/* The host's name of a file of the share. */
static const char *host(const char *name)
{
	static char path[2][512];
	static int turn;

	turn ^= 1;
	snprintf(path[turn], sizeof(path[turn]), "%s/%s", dir, name);
	return path[turn];
}

static void host_file(const char *name, const char *text)
{
	int fd = open(host(name), O_CREAT | O_WRONLY | O_TRUNC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

static void make(uint32_t fid, const char *name, const char *text)
{
	assert_int_equal(client_walk(&c, 0, fid, ""), 0);
	assert_int_equal(client_create(&c, fid, name, O_RDWR, 0644), 0);
	assert_int_equal(client_write(&c, fid, 0, text, (uint32_t)strlen(text)), (int)strlen(text));
}

/* ---- session ----------------------------------------------------------- */

static void version(void **state)
{
	assert_int_equal(client_call(&c, P9_TVERSION, "ds", 8192u, "9P2000.L"), 0);
	assert_int_equal(p9_get32(&c.body), 8192);
	assert_int_equal(p9_get_text(&c.body).len, 8);
	/* All fids are gone. */
	assert_int_equal(client_clunk(&c, 0), -EBADF);
	/* Never more than the server has. */
	assert_int_equal(client_call(&c, P9_TVERSION, "ds", UINT32_MAX, "9P2000.L"), 0);
	assert_int_equal(p9_get32(&c.body), 1024 * 1024);
	assert_int_equal(client_call(&c, P9_TVERSION, "ds", 100u, "9P2000.L"), -EMSGSIZE);
	assert_int_equal(client_call(&c, P9_TVERSION, "ds", 8192u, "9P2000.u"), 0);
	p9_get32(&c.body);
	assert_memory_equal(p9_get_text(&c.body).p, "unknown", 7);
	assert_int_equal(client_call(&c, P9_TATTACH, "ddssd", 0u, P9_NOFID, "", "", 0u), -EPROTO);
}

static void attach(void **state)
{
	struct client_attr a;

	assert_int_equal(client_call(&c, P9_TAUTH, "dssd", 1u, "", "", 0u), -EOPNOTSUPP);
	assert_int_equal(client_call(&c, P9_TATTACH, "ddssd", 0u, P9_NOFID, "", "", 0u), -EEXIST);
	assert_int_equal(client_call(&c, P9_TATTACH, "ddssd", P9_NOFID, P9_NOFID, "", "", 0u), -EBADF);
	assert_int_equal(client_call(&c, P9_TATTACH, "ddssd", 1u, 0u, "", "", 0u), -EOPNOTSUPP);
	assert_int_equal(mkdir(host("sub"), 0755), 0);
	host_file("file", "");
	assert_int_equal(client_call(&c, P9_TATTACH, "ddssd", 1u, P9_NOFID, "", "/sub/", 0u), 0);
	assert_int_equal(client_getattr(&c, 1, &a), 0);
	assert_true(S_ISDIR(a.mode));
	assert_int_equal(client_call(&c, P9_TATTACH, "ddssd", 2u, P9_NOFID, "", "../..", 0u), 0);
	assert_int_equal(client_call(&c, P9_TATTACH, "ddssd", 3u, P9_NOFID, "", "none", 0u), -ENOENT);
	assert_int_equal(client_call(&c, P9_TATTACH, "ddssd", 3u, P9_NOFID, "", "file", 0u), -ENOTDIR);
}

static void walk(void **state)
{
	struct client_attr root, a;

	assert_int_equal(mkdir(host("a"), 0755), 0);
	assert_int_equal(mkdir(host("a/b"), 0755), 0);
	host_file("a/b/f", "x");
	assert_int_equal(client_walk(&c, 0, 1, "a/b/f"), 0);
	assert_int_equal(client_getattr(&c, 1, &a), 0);
	assert_int_equal(a.size, 1);
	assert_int_equal(client_walk(&c, 0, 1, "a"), -EEXIST);
	assert_int_equal(client_walk(&c, 7, 8, "a"), -EBADF);
	assert_int_equal(client_walk(&c, 0, 2, "z"), -ENOENT);
	/* As far as it went: two qids, and no fid. */
	assert_int_equal(client_walk(&c, 0, 2, "a/b/z"), -ENOENT);
	assert_int_equal(c.body.left, 26);
	assert_int_equal(client_clunk(&c, 2), -EBADF);
	assert_int_equal(client_walk(&c, 1, 2, "f"), -ENOTDIR);
	/* Above the root there is the root. */
	assert_int_equal(client_getattr(&c, 0, &root), 0);
	assert_int_equal(client_walk(&c, 0, 3, "a/../../../.."), 0);
	assert_int_equal(client_getattr(&c, 3, &a), 0);
	assert_int_equal(a.qid.path, root.qid.path);
	/* A fid may move. */
	assert_int_equal(client_walk(&c, 3, 3, "a"), 0);
	assert_int_equal(client_walk(&c, 3, 4, "b"), 0);
}

static void walk_names(void **state)
{
	static const char *const bad[] = { ".", "a/b", "/", "" };
	char lengthy[300];

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(client_call(&c, P9_TWALK, "ddws", 0u, 1u, 1, bad[i]), -ENOENT);
	assert_int_equal(client_call(&c, P9_TWALK, "ddwx", 0u, 1u, 1, "\3\0a\0b", (size_t)5), -ENOENT);
	memset(lengthy, 'n', 299);
	lengthy[299] = '\0';
	assert_int_equal(client_call(&c, P9_TWALK, "ddws", 0u, 1u, 1, lengthy), -ENAMETOOLONG);
	assert_int_equal(client_call(&c, P9_TWALK, "ddw", 0u, 1u, 17), -EINVAL);
	assert_int_equal(client_call(&c, P9_TWALK, "ddw", 0u, P9_NOFID, 0), -EBADF);
}

/* ---- files ------------------------------------------------------------- */

static void create_read_write(void **state)
{
	struct client_attr a;
	struct stat st;
	char buf[64];

	make(1, "f", "hello world");
	assert_int_equal(client_read(&c, 1, 6, buf, 64), 5);
	assert_memory_equal(buf, "world", 5);
	assert_int_equal(client_read(&c, 1, 11, buf, 64), 0);
	assert_int_equal(client_read(&c, 1, UINT64_MAX, buf, 64), 0);
	assert_int_equal(client_write(&c, 1, UINT64_MAX - 3, "x", 1), -EFBIG);
	assert_int_equal(client_getattr(&c, 1, &a), 0);
	assert_int_equal(a.mode, S_IFREG | 0644);
	assert_int_equal(a.uid, 0);
	assert_int_equal(stat(host("f"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);	/* mapped */
	/* An open fid cannot be walked, nor opened again. */
	assert_int_equal(client_walk(&c, 1, 2, ""), -EINVAL);
	assert_int_equal(client_open(&c, 1, 0), -EINVAL);
	assert_int_equal(client_call(&c, P9_TFSYNC, "dd", 1u, 0u), 0);
	assert_int_equal(client_call(&c, P9_TFSYNC, "dd", 1u, 1u), 0);
	assert_int_equal(client_call(&c, P9_TFSYNC, "dd", 0u, 0u), -EBADF);
	assert_int_equal(client_clunk(&c, 1), 0);
	assert_int_equal(client_clunk(&c, 1), -EBADF);
	/* By what it was opened for. */
	assert_int_equal(client_walk(&c, 0, 1, "f"), 0);
	assert_int_equal(client_read(&c, 1, 0, buf, 1), -EBADF);
	assert_int_equal(client_open(&c, 1, 3), -EINVAL);
	assert_int_equal(client_open(&c, 1, O_RDONLY), 0);
	assert_int_equal(client_write(&c, 1, 0, "x", 1), -EBADF);
	assert_int_equal(client_walk(&c, 0, 2, "f"), 0);
	assert_int_equal(client_open(&c, 2, O_WRONLY | P9_OPEN_TRUNC), 0);
	assert_int_equal(client_read(&c, 2, 0, buf, 1), -EBADF);
	assert_int_equal(client_read(&c, 1, 0, buf, 1), 0);
}

static void create_twice(void **state)
{
	char buf[8];

	make(1, "f", "abc");
	assert_int_equal(client_walk(&c, 0, 2, ""), 0);
	assert_int_equal(client_create(&c, 2, "f", O_RDWR | P9_OPEN_EXCL, 0644), -EEXIST);
	assert_int_equal(client_create(&c, 2, "f", O_RDWR, 0644), 0);
	assert_int_equal(client_read(&c, 2, 0, buf, 8), 3);
	assert_int_equal(client_walk(&c, 0, 3, ""), 0);
	assert_int_equal(client_create(&c, 3, "f", O_RDWR | P9_OPEN_TRUNC, 0644), 0);
	assert_int_equal(client_read(&c, 2, 0, buf, 8), 0);
	assert_int_equal(client_walk(&c, 0, 4, ""), 0);
	assert_int_equal(client_create(&c, 4, "..", O_RDWR, 0644), -EINVAL);
	assert_int_equal(client_create(&c, 4, "a/b", O_RDWR, 0644), -EINVAL);
	assert_int_equal(symlink("/etc/passwd", host("out")), 0);
	assert_int_equal(client_create(&c, 4, "out", O_RDWR, 0644), -ENXIO);
}

static void large(void **state)
{
	uint32_t n = 1024 * 1024 - P9_WRITE_HEAD;
	uint8_t *a = malloc(n), *b = malloc(n);

	for (uint32_t i = 0; i < n; i++)
		a[i] = (uint8_t)(i * 7 + i / 251);
	make(1, "f", "");
	assert_int_equal(client_write(&c, 1, 4096, a, n), (int)n);
	assert_int_equal(client_read(&c, 1, 4096, b, n), (int)n);
	assert_memory_equal(a, b, n);
	/* More than fits is cut to what fits. */
	assert_int_equal(client_call(&c, P9_TREAD, "dqd", 1u, (uint64_t)0, UINT32_MAX), 0);
	assert_int_equal(p9_get32(&c.body), 1024 * 1024 - P9_READ_HEAD);
	free(a);
	free(b);
}

static void only_files_and_directories(void **state)
{
	assert_int_equal(mkfifo(host("fifo"), 0644), 0);
	assert_int_equal(symlink("f", host("link")), 0);
	assert_int_equal(client_walk(&c, 0, 1, "fifo"), 0);
	assert_int_equal(client_open(&c, 1, O_RDWR), -ENXIO);
	assert_int_equal(client_open(&c, 1, O_RDONLY), -ENXIO);
	assert_int_equal(client_walk(&c, 0, 2, "link"), 0);
	assert_int_equal(client_open(&c, 2, O_RDONLY), -ENXIO);
	if (mknod(host("null"), S_IFCHR | 0666, makedev(1, 3)) == 0) {
		assert_int_equal(client_walk(&c, 0, 3, "null"), 0);
		assert_int_equal(client_open(&c, 3, O_RDWR), -ENXIO);
		assert_int_equal(client_walk(&c, 0, 4, ""), 0);
		assert_int_equal(client_create(&c, 4, "null", O_RDWR, 0644), -ENXIO);
	}
	assert_int_equal(client_open(&c, 0, O_RDWR), -EISDIR);
	assert_int_equal(client_open(&c, 0, P9_OPEN_DIRECTORY), 0);
}

/* ---- attributes -------------------------------------------------------- */

static void setattr(void **state)
{
	struct client_attr a;
	struct stat st;

	make(1, "f", "0123456789");
	assert_int_equal(client_walk(&c, 0, 2, "f"), 0);
	assert_int_equal(client_setattr(&c, 2, P9_SET_MODE | P9_SET_UID | P9_SET_GID, 0755, 1000, 100, 0), 0);
	assert_int_equal(client_setattr(&c, 2, P9_SET_SIZE, 0, 0, 0, 4), 0);
	assert_int_equal(client_setattr(&c, 2, P9_SET_ATIME | P9_SET_ATIME_TO | P9_SET_MTIME |
					P9_SET_MTIME_TO, 0, 0, 0, 0), 0);
	assert_int_equal(client_getattr(&c, 2, &a), 0);
	assert_int_equal(a.mode, S_IFREG | 0755);
	assert_int_equal(a.uid, 1000);
	assert_int_equal(a.gid, 100);
	assert_int_equal(a.size, 4);
	assert_int_equal(a.atime, 1111);
	assert_int_equal(a.mtime, 2222);
	assert_int_equal(stat(host("f"), &st), 0);
	assert_int_equal(st.st_uid, geteuid());
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(client_setattr(&c, 2, P9_SET_SIZE, 0, 0, 0, UINT64_MAX), -EINVAL);
	assert_int_equal(client_setattr(&c, 0, P9_SET_SIZE, 0, 0, 0, 4), -EISDIR);
	assert_int_equal(client_setattr(&c, 2, 0x8000, 0, 0, 0, 0), -EINVAL);
	/* chown takes set-user-ID away. */
	assert_int_equal(client_setattr(&c, 2, P9_SET_MODE, 06755, 0, 0, 0), 0);
	assert_int_equal(client_setattr(&c, 2, P9_SET_UID, 0, 5, 0, 0), 0);
	assert_int_equal(client_getattr(&c, 2, &a), 0);
	assert_int_equal(a.mode, S_IFREG | 0755);
}

static void setattr_none(void **state)
{
	struct client_attr a;
	struct stat st;

	make(1, "f", "x");
	assert_int_equal(client_setattr(&c, 1, P9_SET_MODE, 0751, 0, 0, 0), 0);
	assert_int_equal(client_getattr(&c, 1, &a), 0);
	assert_int_equal(a.mode, S_IFREG | 0751);
	assert_int_equal(stat(host("f"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0751);
	assert_int_equal(client_call(&c, P9_TSYMLINK, "dssd", 0u, "l", "/etc", 0u), 0);
	assert_int_equal(lstat(host("l"), &st), 0);
	assert_true(S_ISLNK(st.st_mode));
	assert_int_equal(client_call(&c, P9_TMKNOD, "dsdddd", 0u, "p", S_IFIFO | 0644u, 0u, 0u, 0u), 0);
	assert_int_equal(client_call(&c, P9_TMKNOD, "dsdddd", 0u, "d", S_IFCHR | 0644u, 1u, 3u, 0u), -EPERM);
	assert_int_equal(client_walk(&c, 0, 2, "l"), 0);
	assert_int_equal(client_call(&c, P9_TREADLINK, "d", 2u), 0);
	assert_memory_equal(p9_get_text(&c.body).p, "/etc", 4);
	assert_int_equal(client_call(&c, P9_TLINK, "dds", 0u, 2u, "l2"), 0);
	assert_int_equal(lstat(host("l2"), &st), 0);
	assert_true(S_ISLNK(st.st_mode));
}

static void statfs_(void **state)
{
	assert_int_equal(client_call(&c, P9_TSTATFS, "d", 0u), 0);
	assert_int_equal(p9_get32(&c.body), 0x01021997);
	assert_int_equal(c.body.left, 56);
	assert_int_equal(client_call(&c, P9_TSTATFS, "d", 9u), -EBADF);
}

/* ---- names ------------------------------------------------------------- */

static void special_files_mapped(void **state)
{
	struct client_attr a;
	struct stat st;
	char target[5000];

	assert_int_equal(client_call(&c, P9_TSYMLINK, "dssd", 0u, "l", "/etc/passwd", 7u), 0);
	assert_int_equal(lstat(host("l"), &st), 0);
	assert_true(S_ISREG(st.st_mode));	/* nobody on the host can be led out by it */
	assert_int_equal(client_walk(&c, 0, 1, "l"), 0);
	assert_int_equal(client_getattr(&c, 1, &a), 0);
	assert_int_equal(a.mode, S_IFLNK | 0777);
	assert_int_equal(a.qid.type, P9_QID_SYMLINK);
	assert_int_equal(a.gid, 7);
	assert_int_equal(client_call(&c, P9_TREADLINK, "d", 1u), 0);
	assert_memory_equal(p9_get_text(&c.body).p, "/etc/passwd", 11);
	assert_int_equal(client_open(&c, 1, O_RDWR), -ELOOP);
	assert_int_equal(client_call(&c, P9_TREADLINK, "d", 0u), -EINVAL);
	assert_int_equal(client_call(&c, P9_TMKNOD, "dsdddd", 0u, "dev", S_IFBLK | 0640u, 8u, 300u, 0u), 0);
	assert_int_equal(client_walk(&c, 0, 2, "dev"), 0);
	assert_int_equal(client_getattr(&c, 2, &a), 0);
	assert_int_equal(a.mode, S_IFBLK | 0640);
	assert_int_equal(a.rdev, makedev(8, 300));
	assert_int_equal(client_open(&c, 2, O_RDWR), -ENXIO);
	assert_int_equal(client_call(&c, P9_TMKNOD, "dsdddd", 0u, "x", S_IFDIR | 0640u, 0u, 0u, 0u), -EINVAL);
	assert_int_equal(client_call(&c, P9_TMKNOD, "dsdddd", 0u, "l", S_IFIFO | 0640u, 0u, 0u, 0u), -EEXIST);
	memset(target, 't', sizeof(target));
	target[4095] = '\0';
	assert_int_equal(client_call(&c, P9_TSYMLINK, "dssd", 0u, "long", target, 0u), 0);
	assert_int_equal(client_walk(&c, 0, 3, "long"), 0);
	assert_int_equal(client_call(&c, P9_TREADLINK, "d", 3u), 0);
	assert_int_equal(p9_get_text(&c.body).len, 4095);
	target[4095] = 't';
	target[4999] = '\0';
	assert_int_equal(client_call(&c, P9_TSYMLINK, "dssd", 0u, "longer", target, 0u), -ENAMETOOLONG);
	assert_int_equal(client_call(&c, P9_TSYMLINK, "dssd", 0u, "..", "x", 0u), -EINVAL);
}

static void names(void **state)
{
	struct client_attr a;

	assert_int_equal(client_call(&c, P9_TMKDIR, "dsdd", 0u, "d", 01777u, 3u), 0);
	assert_int_equal(p9_get8(&c.body), P9_QID_DIR);
	assert_int_equal(client_walk(&c, 0, 1, "d"), 0);
	assert_int_equal(client_getattr(&c, 1, &a), 0);
	assert_int_equal(a.mode, S_IFDIR | 01777);
	assert_int_equal(a.gid, 3);
	assert_int_equal(client_call(&c, P9_TMKDIR, "dsdd", 0u, "d", 0755u, 3u), -EEXIST);
	make(2, "f", "x");
	assert_int_equal(client_walk(&c, 0, 3, "f"), 0);
	assert_int_equal(client_call(&c, P9_TLINK, "dds", 1u, 3u, "hard"), 0);
	assert_int_equal(client_getattr(&c, 3, &a), 0);
	assert_int_equal(a.nlink, 2);
	assert_int_equal(client_call(&c, P9_TLINK, "dds", 1u, 3u, "hard"), -EEXIST);
	assert_int_equal(client_call(&c, P9_TLINK, "dds", 1u, 0u, "x"), -EPERM);
	assert_int_equal(client_call(&c, P9_TUNLINKAT, "dsd", 0u, "d", 0u), -EISDIR);
	assert_int_equal(client_call(&c, P9_TUNLINKAT, "dsd", 0u, "d", P9_UNLINK_DIR), -ENOTEMPTY);
	assert_int_equal(client_call(&c, P9_TUNLINKAT, "dsd", 0u, "d", 1u), -EINVAL);
	assert_int_equal(client_call(&c, P9_TUNLINKAT, "dsd", 0u, "f", P9_UNLINK_DIR), -ENOTDIR);
	assert_int_equal(client_call(&c, P9_TUNLINKAT, "dsd", 1u, "hard", 0u), 0);
	assert_int_equal(client_call(&c, P9_TUNLINKAT, "dsd", 0u, "d", P9_UNLINK_DIR), 0);
	assert_int_equal(client_call(&c, P9_TUNLINKAT, "dsd", 0u, "..", P9_UNLINK_DIR), -EINVAL);
	/* The fid of a directory that is gone. */
	assert_int_equal(client_call(&c, P9_TMKDIR, "dsdd", 1u, "x", 0755u, 3u), -ENOENT);
}

static void renames(void **state)
{
	struct client_attr a;

	assert_int_equal(mkdir(host("d"), 0755), 0);
	assert_int_equal(mkdir(host("e"), 0755), 0);
	host_file("d/f", "x");
	assert_int_equal(client_walk(&c, 0, 1, "d"), 0);
	assert_int_equal(client_walk(&c, 0, 2, "e"), 0);
	assert_int_equal(client_walk(&c, 0, 3, "d/f"), 0);
	assert_int_equal(client_call(&c, P9_TRENAMEAT, "dsds", 1u, "f", 2u, "g"), 0);
	assert_int_equal(access(host("e/g"), F_OK), 0);
	/* What was walked to before follows, in its name too. */
	assert_int_equal(client_getattr(&c, 3, &a), 0);
	assert_int_equal(client_call(&c, P9_TRENAME, "dds", 3u, 0u, "h"), 0);
	assert_int_equal(access(host("h"), F_OK), 0);
	/* A directory moves, and what is below it is found. */
	host_file("d/x", "y");
	assert_int_equal(client_walk(&c, 1, 4, "x"), 0);
	assert_int_equal(client_call(&c, P9_TRENAMEAT, "dsds", 0u, "d", 2u, "d2"), 0);
	assert_int_equal(client_call(&c, P9_TREMOVE, "d", 4u), 0);
	assert_int_equal(access(host("e/d2/x"), F_OK), -1);
	assert_int_equal(client_call(&c, P9_TRENAMEAT, "dsds", 0u, "e", 1u, "into-itself"), -EINVAL);
	assert_int_equal(client_call(&c, P9_TRENAMEAT, "dsds", 0u, "..", 1u, "x"), -EINVAL);
	assert_int_equal(client_call(&c, P9_TRENAMEAT, "dsds", 0u, "h", 1u, "../x"), -EINVAL);
	assert_int_equal(client_call(&c, P9_TRENAMEAT, "dsds", 0u, "none", 1u, "x"), -ENOENT);
	assert_int_equal(client_walk(&c, 0, 5, ""), 0);
	assert_int_equal(client_call(&c, P9_TRENAME, "dds", 5u, 1u, "x"), -EBUSY);
	assert_int_equal(client_call(&c, P9_TREMOVE, "d", 5u), -EBUSY);
	assert_int_equal(client_clunk(&c, 5), -EBADF);
}

/* rename() over what is open: who has it keeps it. */
static void rename_over(void **state)
{
	char buf[8];

	make(1, "a", "old");
	make(2, "b", "new");
	assert_int_equal(client_walk(&c, 0, 3, "b"), 0);
	assert_int_equal(client_call(&c, P9_TRENAMEAT, "dsds", 0u, "a", 0u, "b"), 0);
	assert_int_equal(client_read(&c, 2, 0, buf, 8), 3);
	assert_memory_equal(buf, "new", 3);
	assert_int_equal(client_open(&c, 3, O_RDONLY), 0);
	assert_int_equal(client_read(&c, 3, 0, buf, 8), 3);
	assert_memory_equal(buf, "new", 3);
	assert_int_equal(client_walk(&c, 0, 4, "b"), 0);
	assert_int_equal(client_open(&c, 4, O_RDONLY), 0);
	assert_int_equal(client_read(&c, 4, 0, buf, 8), 3);
	assert_memory_equal(buf, "old", 3);
	/* Two names of one file: nothing happens. */
	assert_int_equal(client_walk(&c, 0, 5, "b"), 0);
	assert_int_equal(client_call(&c, P9_TLINK, "dds", 0u, 5u, "c"), 0);
	assert_int_equal(client_call(&c, P9_TRENAMEAT, "dsds", 0u, "b", 0u, "c"), 0);
	assert_int_equal(client_call(&c, P9_TREMOVE, "d", 5u), 0);
	assert_int_equal(access(host("c"), F_OK), 0);
}

static void readdir_(void **state)
{
	enum { N = 300 };
	uint64_t offset = 0, at[N + 2] = { 0 };
	unsigned seen = 0;
	char name[32];
	uint32_t n;

	for (int i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "file-%d", i);
		host_file(name, "");
	}
	assert_int_equal(client_call(&c, P9_TSYMLINK, "dssd", 0u, "link", "t", 0u), 0);
	assert_int_equal(client_walk(&c, 0, 1, ""), 0);
	assert_int_equal(client_call(&c, P9_TREADDIR, "dqd", 1u, (uint64_t)0, 4096u), -EBADF);
	assert_int_equal(client_open(&c, 1, O_RDONLY), 0);
	for (;;) {
		assert_int_equal(client_call(&c, P9_TREADDIR, "dqd", 1u, offset, 1000u), 0);
		n = p9_get32(&c.body);
		assert_int_equal(n, c.body.left);
		assert_true(c.body.left <= 1000);
		if (!c.body.left)
			break;
		while (c.body.left) {
			uint8_t type, qtype = p9_get8(&c.body);
			struct p9_text t;

			p9_get32(&c.body);
			p9_get64(&c.body);
			offset = p9_get64(&c.body);
			type = p9_get8(&c.body);
			t = p9_get_text(&c.body);
			assert_false(c.body.bad);
			if (t.len == 4 && !memcmp(t.p, "link", 4)) {
				assert_int_equal(type, DT_LNK);
				assert_int_equal(qtype, P9_QID_SYMLINK);
			}
			if (seen < N + 2)
				at[seen] = offset;
			seen++;
		}
	}
	assert_int_equal(seen, N + 3);
	/* From anywhere. */
	assert_int_equal(client_call(&c, P9_TREADDIR, "dqd", 1u, at[N + 1], 4096u), 0);
	assert_true(c.body.left > 4 && c.body.left < 100);
	assert_int_equal(client_call(&c, P9_TREADDIR, "dqd", 1u, (uint64_t)0, 10u), -EINVAL);
	assert_int_equal(client_call(&c, P9_TREADDIR, "dqd", 1u, (uint64_t)0, 0u), 0);
	client_call(&c, P9_TREADDIR, "dqd", 1u, UINT64_MAX, 4096u);
	client_call(&c, P9_TREADDIR, "dqd", 1u, (uint64_t)1 << 62, 4096u);
}

/* ---- extended attributes ----------------------------------------------- */

static int set_xattr(const char *path, const char *name, const char *value, uint32_t flags)
{
	size_t n = strlen(value);
	int err;

	client_clunk(&c, 90);
	assert_int_equal(client_walk(&c, 0, 90, path), 0);
	err = client_call(&c, P9_TXATTRCREATE, "dsqd", 90u, name, (uint64_t)n, flags);
	if (err)
		return err;
	if (n)
		assert_int_equal(client_write(&c, 90, 0, value, (uint32_t)n), (int)n);
	return client_clunk(&c, 90);
}

static int get_xattr(const char *path, const char *name, char *buf, uint32_t room)
{
	int err;

	client_clunk(&c, 91);
	client_clunk(&c, 92);
	assert_int_equal(client_walk(&c, 0, 91, path), 0);
	err = client_call(&c, P9_TXATTRWALK, "dds", 91u, 92u, name);
	if (err)
		return err;
	return client_read(&c, 92, 0, buf, room);
}

static void xattrs(void **state)
{
	char buf[4096];
	int n;

	make(1, "f", "x");
	assert_int_equal(set_xattr("f", "user.one", "first", 0), 0);
	assert_int_equal(set_xattr("f", "security.thing", "label", 0), 0);
	assert_int_equal(get_xattr("f", "user.one", buf, sizeof(buf)), 5);
	assert_memory_equal(buf, "first", 5);
	assert_int_equal(get_xattr("f", "security.thing", buf, sizeof(buf)), 5);
	assert_true(getxattr(host("f"), "security.thing", buf, sizeof(buf)) < 0);
	assert_int_equal(get_xattr("f", "user.none", buf, sizeof(buf)), -ENODATA);
	n = get_xattr("f", "", buf, sizeof(buf));
	assert_int_equal(n, (int)(sizeof("user.one") + sizeof("security.thing")));
	assert_int_equal(set_xattr("f", "user.one", "x", XATTR_CREATE), -EEXIST);
	assert_int_equal(set_xattr("f", "user.two", "x", XATTR_REPLACE), -ENODATA);
	assert_int_equal(set_xattr("f", "user.one", "", XATTR_REPLACE), 0);
	assert_int_equal(get_xattr("f", "user.one", buf, sizeof(buf)), -ENODATA);
	/* More than was announced, a size beyond all bounds, and what is not one. */
	assert_int_equal(client_walk(&c, 0, 3, "f"), 0);
	assert_int_equal(client_call(&c, P9_TXATTRCREATE, "dsqd", 3u, "user.x", UINT64_MAX, 0u), -E2BIG);
	assert_int_equal(client_call(&c, P9_TXATTRCREATE, "dsqd", 3u, "user.x", (uint64_t)4, 8u), -EINVAL);
	assert_int_equal(client_call(&c, P9_TXATTRCREATE, "dsqd", 3u, "user.x", (uint64_t)4, 0u), 0);
	assert_int_equal(client_write(&c, 3, 0, "12345", 5), -ENOSPC);
	assert_int_equal(client_write(&c, 3, UINT64_MAX, "1", 1), -ENOSPC);
	assert_int_equal(client_write(&c, 3, 2, "34", 2), 2);
	assert_int_equal(client_read(&c, 3, 0, buf, 4), -EBADF);
	assert_int_equal(client_clunk(&c, 3), 0);
	assert_int_equal(get_xattr("f", "user.x", buf, sizeof(buf)), 4);
	assert_memory_equal(buf, "\0\00034", 4);
	assert_int_equal(client_call(&c, P9_TXATTRWALK, "dds", 0u, 0u, ""), -EEXIST);
}

/* CVE-2017-7493: what holds the mapped metadata cannot be named by a client. */
static void xattrs_of_ours(void **state)
{
	static const char *const ours[] = { "user.skep.meta", "user.virtfs.uid", "user.virtfs.mode",
					    "user.virtfs.security.x", "user.skep." };
	struct client_attr a;
	char buf[256];

	make(1, "f", "x");
	for (size_t i = 0; i < ARRAY_SIZE(ours); i++) {
		assert_int_equal(get_xattr("f", ours[i], buf, sizeof(buf)), -ENODATA);
		assert_int_equal(set_xattr("f", ours[i], "x", 0), -EACCES);
	}
	assert_int_equal(set_xattr("f", "other.x", "x", 0), -EOPNOTSUPP);
	assert_int_equal(get_xattr("f", "", buf, sizeof(buf)), 0);
	/* QEMU's directory for them is a name as any other. */
	assert_int_equal(client_call(&c, P9_TMKDIR, "dsdd", 0u, ".virtfs_metadata", 0755u, 0u), 0);
	assert_int_equal(client_walk(&c, 0, 5, "f"), 0);
	assert_int_equal(client_getattr(&c, 5, &a), 0);
	assert_int_equal(a.mode, S_IFREG | 0644);
}

/* What was shared by QEMU with mapped-xattr is read. */
static void qemus_metadata(void **state)
{
	uint8_t w[8];
	struct client_attr a;

	host_file("q", "target");
	store32(w, 1234);
	assert_int_equal(setxattr(host("q"), "user.virtfs.uid", w, 4, 0), 0);
	store32(w, S_IFLNK | 0777);
	assert_int_equal(setxattr(host("q"), "user.virtfs.mode", w, 4, 0), 0);
	assert_int_equal(client_walk(&c, 0, 1, "q"), 0);
	assert_int_equal(client_getattr(&c, 1, &a), 0);
	assert_int_equal(a.uid, 1234);
	assert_int_equal(a.mode, S_IFLNK | 0777);
	assert_int_equal(client_setattr(&c, 1, P9_SET_GID, 0, 0, 77, 0), 0);
	assert_int_equal(client_getattr(&c, 1, &a), 0);
	assert_int_equal(a.uid, 1234);
	assert_int_equal(a.gid, 77);
	assert_int_equal(a.mode, S_IFLNK | 0777);
}

/* ---- locks ------------------------------------------------------------- */

static int lock_as(uint32_t process, int type, uint64_t start, uint64_t length)
{
	int err = client_call(&c, P9_TLOCK, "dbdqqds", 1u, type, 0u, start, length, process, "me");

	return err ? err : p9_get8(&c.body);
}

static void locks(void **state)
{
	make(1, "f", "x");
	assert_int_equal(lock_as(1, P9_LOCK_READ, 0, 100), P9_LOCK_SUCCESS);
	assert_int_equal(lock_as(2, P9_LOCK_READ, 50, 100), P9_LOCK_SUCCESS);
	assert_int_equal(lock_as(2, P9_LOCK_WRITE, 99, 1), P9_LOCK_BLOCKED);
	assert_int_equal(lock_as(2, P9_LOCK_WRITE, 100, 0), P9_LOCK_SUCCESS);
	assert_int_equal(lock_as(1, P9_LOCK_READ, UINT64_MAX, 1), P9_LOCK_BLOCKED);
	assert_int_equal(lock_as(1, P9_LOCK_UNLOCK, 10, 10), P9_LOCK_SUCCESS);
	assert_int_equal(lock_as(3, P9_LOCK_WRITE, 10, 10), P9_LOCK_SUCCESS);
	assert_int_equal(lock_as(3, P9_LOCK_WRITE, 10, 11), P9_LOCK_BLOCKED);
	assert_int_equal(client_call(&c, P9_TGETLOCK, "dbqqds", 1u, P9_LOCK_WRITE, (uint64_t)5, (uint64_t)1,
				     3u, "me"), 0);
	assert_int_equal(p9_get8(&c.body), P9_LOCK_READ);
	assert_int_equal(p9_get64(&c.body), 0);
	assert_int_equal(p9_get64(&c.body), 10);
	assert_int_equal(p9_get32(&c.body), 1);
	assert_int_equal(client_call(&c, P9_TGETLOCK, "dbqqds", 1u, P9_LOCK_READ, (uint64_t)5, (uint64_t)1,
				     3u, "me"), 0);
	assert_int_equal(p9_get8(&c.body), P9_LOCK_UNLOCK);
	assert_int_equal(lock_as(3, P9_LOCK_WRITE, UINT64_MAX, 2), -EINVAL);
	assert_int_equal(lock_as(3, 9, 0, 2), -EINVAL);
	assert_int_equal(client_call(&c, P9_TLOCK, "dbdqqds", 0u, 0, 0u, (uint64_t)0, (uint64_t)0, 1u, ""),
			 -EBADF);
	/* Those of a fid go with it. */
	assert_int_equal(client_clunk(&c, 1), 0);
	assert_int_equal(client_walk(&c, 0, 1, "f"), 0);
	assert_int_equal(client_open(&c, 1, O_RDWR), 0);
	assert_int_equal(lock_as(9, P9_LOCK_WRITE, 0, 0), P9_LOCK_SUCCESS);
}

static void locks_of_two_clients(void **state)
{
	struct client d;

	make(1, "f", "x");
	assert_int_equal(lock_as(1, P9_LOCK_WRITE, 0, 0), P9_LOCK_SUCCESS);
	client_join(&d, &c);
	assert_int_equal(client_attach(&d, 0, 0), 0);
	assert_int_equal(client_walk(&d, 0, 1, "f"), 0);
	assert_int_equal(client_open(&d, 1, O_RDWR), 0);
	assert_int_equal(client_call(&d, P9_TLOCK, "dbdqqds", 1u, P9_LOCK_WRITE, 0u, (uint64_t)0, (uint64_t)0,
				     1u, "me"), 0);
	assert_int_equal(p9_get8(&d.body), P9_LOCK_BLOCKED);
	assert_int_equal(client_version(&c, 8192), 0);	/* ends all of c's */
	assert_int_equal(client_call(&d, P9_TLOCK, "dbdqqds", 1u, P9_LOCK_WRITE, 0u, (uint64_t)0, (uint64_t)0,
				     1u, "me"), 0);
	assert_int_equal(p9_get8(&d.body), P9_LOCK_SUCCESS);
	client_stop(&d);
}

/* ---- malformed --------------------------------------------------------- */

static const struct {
	uint8_t type;
	const char *what;	/* the form of a message, to be cut short and to be too long */
} forms[] = {
	{ P9_TSTATFS, "d" }, { P9_TLOPEN, "dd" }, { P9_TLCREATE, "dsddd" }, { P9_TSYMLINK, "dssd" },
	{ P9_TMKNOD, "dsdddd" }, { P9_TRENAME, "dds" }, { P9_TREADLINK, "d" }, { P9_TGETATTR, "dq" },
	{ P9_TSETATTR, "dddddqqqqq" }, { P9_TXATTRWALK, "dds" }, { P9_TXATTRCREATE, "dsqd" },
	{ P9_TREADDIR, "dqd" }, { P9_TFSYNC, "dd" }, { P9_TLOCK, "dbdqqds" },
	{ P9_TGETLOCK, "dbqqds" }, { P9_TLINK, "dds" }, { P9_TMKDIR, "dsdd" },
	{ P9_TRENAMEAT, "dsds" }, { P9_TUNLINKAT, "dsd" }, { P9_TVERSION, "ds" },
	{ P9_TATTACH, "ddssd" }, { P9_TFLUSH, "w" }, { P9_TWALK, "ddw" }, { P9_TREAD, "dqd" },
	{ P9_TCLUNK, "d" }, { P9_TREMOVE, "d" },
};

static size_t form_bytes(const char *what, uint8_t *out)
{
	struct p9_out o = { out, 0, 256, false };

	for (; *what; what++) {
		switch (*what) {
		case 'b': p9_put8(&o, 0); break;
		case 'w': p9_put16(&o, 0); break;
		case 'd': p9_put32(&o, 77); break;
		case 'q': p9_put64(&o, 0); break;
		case 's': p9_put_text(&o, "abc", 3); break;
		}
	}
	return o.len;
}

static void cut_and_long(void **state)
{
	uint8_t body[300];

	for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
		size_t n = form_bytes(forms[i].what, body);

		for (size_t cut = 0; cut < n; cut++)
			assert_int_equal(client_call(&c, forms[i].type, "x", body, cut), -EBADMSG);
		body[n] = 0;
		assert_int_equal(client_call(&c, forms[i].type, "x", body, n + 1), -EBADMSG);
	}
	/* The session is what it was. */
	assert_int_equal(client_walk(&c, 0, 1, ""), 0);
}

static void text_longer_than_message(void **state)
{
	assert_int_equal(client_call(&c, P9_TMKDIR, "dwx", 0u, 0xffff, "abc", (size_t)3), -EBADMSG);
	assert_int_equal(client_call(&c, P9_TWALK, "ddww", 0u, 1u, 1, 0xffff), -EBADMSG);
	assert_int_equal(client_call(&c, P9_TWALK, "ddwws", 0u, 1u, 16, 0, "abc"), -EBADMSG);
}

static void every_type(void **state)
{
	uint8_t body[64] = { 0 };

	for (int type = 0; type < 256; type++) {
		bool known = type == P9_TVERSION || type == P9_TAUTH;

		for (size_t i = 0; i < ARRAY_SIZE(forms); i++)
			known |= forms[i].type == type;
		known |= type == P9_TWRITE;
		if (!known)
			assert_int_equal(client_call(&c, (uint8_t)type, "x", body, sizeof(body)), -EOPNOTSUPP);
	}
}

static void write_counts(void **state)
{
	make(1, "f", "abc");
	assert_int_equal(client_call(&c, P9_TWRITE, "dqdx", 1u, (uint64_t)0, 100u, "abc", (size_t)3), -EBADMSG);
	assert_int_equal(client_call(&c, P9_TWRITE, "dqdx", 1u, (uint64_t)0, 2u, "abc", (size_t)3), -EBADMSG);
	assert_int_equal(client_call(&c, P9_TWRITE, "dqd", 1u, (uint64_t)0, UINT32_MAX), -EBADMSG);
	assert_int_equal(client_call(&c, P9_TWRITE, "dq", 1u, (uint64_t)0), -EBADMSG);
	assert_int_equal(client_call(&c, P9_TWRITE, "dqd", 1u, (uint64_t)0, 0u), 0);
}

/* After a size that cannot be, nobody knows where a message begins: the server closes. */
static void sizes(void **state)
{
	static const uint32_t bad[] = { 0, 1, 6, 0x7fffffff, 0xffffffff, 1024 * 1024 + 1 };

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct client d;
		uint8_t head[16] = { 0 };

		client_join(&d, &c);
		assert_int_equal(client_attach(&d, 0, 0), 0);
		store32(head, bad[i]);
		head[4] = P9_TCLUNK;
		client_raw(&d, head, sizeof(head));
		assert_false(client_receive(&d));
		client_stop(&d);
	}
}

static void quotas(void **state)
{
	uint32_t made = 0;
	char name[16];

	/* Fids. */
	while (client_walk(&c, 0, made + 1, "") == 0)
		made++;
	assert_int_equal(made, 15);
	assert_int_equal(client_walk(&c, 0, 100, ""), -ENFILE);
	for (uint32_t i = 1; i <= made; i++)
		assert_int_equal(client_clunk(&c, i), 0);
	/* Descriptors: nodes are closed for others, and found again. */
	for (int i = 0; i < 40; i++) {
		snprintf(name, sizeof(name), "d%d", i);
		assert_int_equal(mkdir(host(name), 0755), 0);
	}
	for (uint32_t i = 0; i < 14; i++) {
		struct client_attr a;

		snprintf(name, sizeof(name), "d%u", i);
		assert_int_equal(client_walk(&c, 0, 1 + i, name), 0);
		for (int k = 14; k < 40; k++) {
			snprintf(name, sizeof(name), "d%d", k);
			assert_int_equal(client_walk(&c, 0, 15, name), 0);
			assert_int_equal(client_getattr(&c, 1 + i / 2, &a), 0);
			assert_int_equal(client_clunk(&c, 15), 0);
		}
	}
	/* One of them was replaced meanwhile: that one is stale, and the others are not. */
	for (uint32_t i = 0; i < 14; i++) {
		snprintf(name, sizeof(name), "d%u", i);
		assert_int_equal(client_walk(&c, 1 + i, 15, ""), 0);
		client_clunk(&c, 15);
	}
}

static void readonly(void **state)
{
	struct client d;
	char buf[4];

	host_file("f", "abc");
	client_start(&d, dir, "ro");
	assert_int_equal(client_attach(&d, 0, 0), 0);
	assert_int_equal(client_walk(&d, 0, 1, "f"), 0);
	assert_int_equal(client_open(&d, 1, O_RDWR), -EROFS);
	assert_int_equal(client_open(&d, 1, P9_OPEN_TRUNC), -EROFS);
	assert_int_equal(client_setattr(&d, 1, P9_SET_MODE, 0, 0, 0, 0), -EROFS);
	assert_int_equal(client_call(&d, P9_TXATTRCREATE, "dsqd", 1u, "user.x", (uint64_t)1, 0u), -EROFS);
	assert_int_equal(client_open(&d, 1, O_RDONLY), 0);
	assert_int_equal(client_read(&d, 1, 0, buf, 4), 3);
	assert_int_equal(client_walk(&d, 0, 2, ""), 0);
	assert_int_equal(client_create(&d, 2, "g", O_RDWR, 0644), -EROFS);
	assert_int_equal(client_call(&d, P9_TMKDIR, "dsdd", 0u, "d", 0755u, 0u), -EROFS);
	assert_int_equal(client_call(&d, P9_TSYMLINK, "dssd", 0u, "d", "x", 0u), -EROFS);
	assert_int_equal(client_call(&d, P9_TMKNOD, "dsdddd", 0u, "d", 0644u, 0u, 0u, 0u), -EROFS);
	assert_int_equal(client_call(&d, P9_TLINK, "dds", 0u, 2u, "l"), -EROFS);
	assert_int_equal(client_call(&d, P9_TRENAMEAT, "dsds", 0u, "f", 0u, "g"), -EROFS);
	assert_int_equal(client_call(&d, P9_TRENAME, "dds", 2u, 0u, "g"), -EROFS);
	assert_int_equal(client_call(&d, P9_TUNLINKAT, "dsd", 0u, "f", 0u), -EROFS);
	assert_int_equal(client_call(&d, P9_TREMOVE, "d", 2u), -EROFS);
	assert_int_equal(client_clunk(&d, 2), -EBADF);
	client_stop(&d);
	assert_int_equal(access(host("f"), F_OK), 0);
}

static void maps_and_squash(void **state)
{
	struct client_attr a;
	struct client d;
	char text[64];

	host_file("f", "abc");
	snprintf(text, sizeof(text), "map=%u:1000:1 cache=none", geteuid());
	client_start(&d, dir, text);
	assert_int_equal(client_attach(&d, 0, 0), 0);
	assert_int_equal(client_walk(&d, 0, 1, "f"), 0);
	assert_int_equal(client_getattr(&d, 1, &a), 0);
	assert_int_equal(a.uid, 1000);
	assert_int_equal(a.qid.version, 0);
	client_stop(&d);
	client_start(&d, dir, "map=70000:0:5 security=none");
	assert_int_equal(client_attach(&d, 0, 0), 0);
	assert_int_equal(client_walk(&d, 0, 1, "f"), 0);
	assert_int_equal(client_getattr(&d, 1, &a), 0);
	assert_int_equal(a.uid, 65534);
	assert_int_equal(client_setattr(&d, 1, P9_SET_UID, 0, 5, 0, 0), -EINVAL);
	client_stop(&d);
	client_start(&d, dir, "squash=500:501");
	assert_int_equal(client_attach(&d, 0, 0), 0);
	assert_int_equal(client_walk(&d, 0, 1, "f"), 0);
	assert_int_equal(client_setattr(&d, 1, P9_SET_UID, 0, 7, 0, 0), 0);
	assert_int_equal(client_getattr(&d, 1, &a), 0);
	assert_int_equal(a.uid, 500);
	assert_int_equal(a.gid, 501);
	client_stop(&d);
}

static void options(void **state)
{
	static const char *const bad[][2] = {
		{ "map", "1:2" }, { "map", "1:2:0" }, { "map", "1:2:3+" }, { "map", "4294967295:0:1" },
		{ "map", "4294967290:0:100" }, { "map", "a:b:c" }, { "map", "" }, { "squash", "x" },
		{ "squash", "1:" }, { "squash", "1:2:3" },
		{ "security", "root" }, { "security", NULL }, { "msize", "1" }, { "msize", "-1" },
		{ "workers", "0" }, { "workers", "17" }, { "fids", "4294967296" }, { "ro", "maybe" },
		{ "multidevs", "yes" }, { "cache", "loose" }, { "nonsense", NULL },
	};
	struct skep_error e;
	struct p9_options o;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		p9_options_init(&o);
		e.text[0] = '\0';
		assert_true(p9_option_set(&o, bad[i][0], bad[i][1], &e) < 0);
		assert_non_null(strstr(e.text, bad[i][0]));
	}
	assert_int_equal(p9_option_set(&o, "map", "0:0:1+1000:2000:5", &e), 0);
	assert_int_equal(o.nmap, 2);
	o.path = "/nonexistent/dir";
	assert_null(p9_server_create(&o, "pci.0.5.0", &e));
	assert_non_null(strstr(e.text, "/nonexistent/dir"));
}

#define T(f)	cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(version), T(attach), T(walk), T(walk_names),
		T(create_read_write), T(create_twice), T(large), T(only_files_and_directories),
		T(setattr), cmocka_unit_test_setup_teardown(setattr_none, begin_none, end), T(statfs_),
		T(special_files_mapped), T(names), T(renames), T(rename_over), T(readdir_),
		T(xattrs), T(xattrs_of_ours), T(qemus_metadata), T(locks), T(locks_of_two_clients),
		T(cut_and_long), T(text_longer_than_message), T(every_type), T(write_counts), T(sizes),
		cmocka_unit_test_setup_teardown(quotas, begin_small, end),
		T(readonly), T(maps_and_squash), T(options),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
