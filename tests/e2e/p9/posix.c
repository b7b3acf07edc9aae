/*
 * What POSIX wants of a file system, asked from inside a guest: posix [-n OPERATIONS] DIRECTORY.
 *
 * It runs as root, and as others where permissions are asked for.  After the single questions it reads
 * and writes a file at random against a model in memory, says "model" now and then, and goes on
 * for as many operations as it was told: so it can be saved and restored meanwhile.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

static unsigned asked, wrong;

#define IS(expression) ask((expression) ? 1 : 0, #expression, __LINE__)
#define FAILS(expression, error) \
	ask((expression) < 0 && errno == (error), #expression " fails with " #error, __LINE__)

static void ask(int good, const char *what, int line)
{
	asked++;
	if (good)
		return;
	wrong++;
	printf("posix.c:%d: not so: %s (errno %d, %s)\n", line, what, errno, strerror(errno));
}

static int put(const char *name, const char *text, mode_t mode)
{
	int fd = open(name, O_CREAT | O_RDWR | O_TRUNC, mode);

	if (fd < 0)
		return -1;
	IS(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	return close(fd);
}

static struct stat st;

static const struct stat *of(const char *name)
{
	memset(&st, 0, sizeof(st));
	lstat(name, &st);
	return &st;
}

/* As somebody else, in a process of its own: the number of wrong answers comes back. */
static void as(uid_t uid, gid_t gid, void (*what)(void))
{
	int status = -1;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		wrong = 0;
		IS(setgid(gid) == 0 && setuid(uid) == 0);
		what();
		fflush(stdout);
		_exit(wrong > 100 ? 100 : (int)wrong);
	}
	waitpid(pid, &status, 0);
	asked++;
	wrong += WIFEXITED(status) ? (unsigned)WEXITSTATUS(status) : 1;
}

/* ---- single questions ---------------------------------------------------- */

static void files(void)
{
	char buf[16];
	int fd;

	IS(put("f", "hello", 0644) == 0);
	IS(of("f")->st_size == 5 && st.st_mode == (S_IFREG | 0644) && st.st_nlink == 1 && st.st_uid == 0);
	FAILS(open("f", O_CREAT | O_EXCL | O_RDWR, 0644), EEXIST);
	FAILS(open("none", O_RDONLY), ENOENT);
	FAILS(open("f/x", O_RDONLY), ENOTDIR);
	FAILS(open(".", O_RDWR), EISDIR);
	fd = open("f", O_RDWR | O_APPEND);
	IS(write(fd, "!", 1) == 1 && pread(fd, buf, 16, 0) == 6 && !memcmp(buf, "hello!", 6));
	close(fd);
	fd = open("f", O_WRONLY | O_TRUNC);
	IS(of("f")->st_size == 0);
	FAILS(read(fd, buf, 1), EBADF);
	close(fd);
	memset(buf, 'n', sizeof(buf));
	{
		char lengthy[300];

		memset(lengthy, 'n', 256);
		lengthy[256] = '\0';
		FAILS(open(lengthy, O_CREAT | O_RDWR, 0644), ENAMETOOLONG);
		lengthy[255] = '\0';
		fd = open(lengthy, O_CREAT | O_RDWR, 0644);
		IS(fd >= 0);
		close(fd);
		IS(unlink(lengthy) == 0);
	}
	IS(unlink("f") == 0);
	FAILS(unlink("f"), ENOENT);
}

static void truncation_and_holes(void)
{
	char buf[8192], zero[8192] = { 0 };
	int fd = open("h", O_CREAT | O_RDWR | O_TRUNC, 0644);

	IS(pwrite(fd, "end", 3, 1 << 20) == 3);
	IS(fstat(fd, &st) == 0 && st.st_size == (1 << 20) + 3);
	IS(pread(fd, buf, sizeof(buf), 4096) == sizeof(buf) && !memcmp(buf, zero, sizeof(buf)));
	IS(ftruncate(fd, 100) == 0 && fstat(fd, &st) == 0 && st.st_size == 100);
	IS(ftruncate(fd, 5000) == 0 && pread(fd, buf, sizeof(buf), 0) == 5000 && !memcmp(buf, zero, 5000));
	IS(truncate("h", 10) == 0 && of("h")->st_size == 10);
	FAILS(truncate("h", -1), EINVAL);
	FAILS(truncate(".", 0), EISDIR);
	IS(pread(fd, buf, 16, 10) == 0);
	close(fd);
	unlink("h");
}

static void directories(void)
{
	char name[32];
	struct dirent *e;
	unsigned n = 0;
	DIR *d;

	IS(mkdir("d", 0750) == 0);
	IS(of("d")->st_mode == (S_IFDIR | 0750));
	FAILS(mkdir("d", 0750), EEXIST);
	FAILS(mkdir("none/d", 0750), ENOENT);
	for (int i = 0; i < 500; i++) {
		sprintf(name, "d/%d", i);
		put(name, "", 0600);
	}
	d = opendir("d");
	while ((e = readdir(d)))
		n += e->d_name[0] != '.';
	IS(n == 500);
	/* What is taken away while it is listed. */
	rewinddir(d);
	n = 0;
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		sprintf(name, "d/%.20s", e->d_name);
		n += unlink(name) == 0;
	}
	closedir(d);
	d = opendir("d");
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		sprintf(name, "d/%.20s", e->d_name);
		n += unlink(name) == 0;
	}
	closedir(d);
	IS(n == 500);
	FAILS(unlink("d"), EISDIR);
	IS(mkdir("d/e", 0755) == 0);
	FAILS(rmdir("d"), ENOTEMPTY);
	IS(rmdir("d/e") == 0 && rmdir("d") == 0);
	FAILS(rmdir("d"), ENOENT);
}

static void renames(void)
{
	char buf[8];
	int fd;

	put("a", "a", 0644);
	put("b", "bb", 0644);
	fd = open("b", O_RDONLY);
	IS(rename("a", "b") == 0);
	IS(of("b")->st_size == 1);
	FAILS(access("a", F_OK), ENOENT);
	IS(pread(fd, buf, 8, 0) == 2 && fstat(fd, &st) == 0 && st.st_nlink == 0);	/* who had it, keeps it */
	close(fd);
	IS(mkdir("d", 0755) == 0 && mkdir("d/e", 0755) == 0 && mkdir("empty", 0755) == 0);
	FAILS(rename("b", "d"), EISDIR);
	FAILS(rename("d", "b"), ENOTDIR);
	FAILS(rename("d", "d/e/f"), EINVAL);
	FAILS(rename("none", "x"), ENOENT);
	IS(rename("empty", "d") < 0 && (errno == ENOTEMPTY || errno == EEXIST));
	IS(rename("d/e", "empty") == 0);
	IS(link("b", "b2") == 0 && rename("b", "b2") == 0 && access("b", F_OK) == 0);
	IS(rename("b", "d/b") == 0 && access("d/b", F_OK) == 0);
	IS(chdir("d") == 0 && rename("../d", "../moved") == 0 && access("b", F_OK) == 0 && chdir("..") == 0);
	unlink("moved/b");
	unlink("b2");
	IS(rmdir("moved") == 0 && rmdir("empty") == 0);
}

static void links(void)
{
	char buf[64];
	ssize_t n;

	put("f", "x", 0644);
	IS(link("f", "g") == 0 && of("g")->st_nlink == 2);
	FAILS(link("f", "g"), EEXIST);
	FAILS(link(".", "x"), EPERM);
	IS(unlink("f") == 0 && of("g")->st_nlink == 1);
	IS(symlink("g", "l") == 0 && S_ISLNK(of("l")->st_mode) && st.st_size == 1);
	n = readlink("l", buf, sizeof(buf));
	IS(n == 1 && buf[0] == 'g');
	IS(open("l", O_RDONLY) >= 0);
	FAILS(open("l", O_RDONLY | O_NOFOLLOW), ELOOP);
	IS(symlink("/nowhere/at/all", "dangling") == 0);
	FAILS(open("dangling", O_RDONLY), ENOENT);
	IS(lchown("dangling", 5, 6) == 0 && of("dangling")->st_uid == 5 && st.st_gid == 6);
	IS(symlink("loop", "loop") == 0);
	FAILS(open("loop", O_RDONLY), ELOOP);
	unlink("g"), unlink("l"), unlink("dangling"), unlink("loop");
}

static void special(void)
{
	IS(mkfifo("p", 0640) == 0 && of("p")->st_mode == (S_IFIFO | 0640));
	IS(mknod("n", S_IFCHR | 0666, makedev(1, 3)) == 0 && S_ISCHR(of("n")->st_mode));
	IS(st.st_rdev == makedev(1, 3));
	{
		int fd = open("n", O_RDWR);
		char c;

		IS(fd >= 0 && write(fd, "x", 1) == 1 && read(fd, &c, 1) == 0);	/* the guest's own null */
		close(fd);
	}
	IS(mknod("b", S_IFBLK | 0600, makedev(8, 257)) == 0 && of("b")->st_rdev == makedev(8, 257));
	{
		/* A FIFO is one of the guest's. */
		int r = open("p", O_RDONLY | O_NONBLOCK), w = open("p", O_WRONLY);
		char c;

		IS(r >= 0 && w >= 0 && write(w, "z", 1) == 1 && read(r, &c, 1) == 1 && c == 'z');
		close(r), close(w);
	}
	unlink("p"), unlink("n"), unlink("b");
}

static void times(void)
{
	struct timespec t[2] = { { 1000000000, 123456789 }, { 1100000000, 987654321 } };
	struct timespec omit[2] = { { 0, UTIME_OMIT }, { 5, 0 } };

	put("t", "x", 0644);
	IS(utimensat(AT_FDCWD, "t", t, 0) == 0);
	IS(of("t")->st_atim.tv_sec == 1000000000 && st.st_mtim.tv_sec == 1100000000);
	/* Linux's 9P client keeps whole seconds. */
	IS((st.st_atim.tv_nsec == 123456789 && st.st_mtim.tv_nsec == 987654321) ||
	   (st.st_atim.tv_nsec == 0 && st.st_mtim.tv_nsec == 0));
	IS(utimensat(AT_FDCWD, "t", omit, 0) == 0 && of("t")->st_atim.tv_sec == 1000000000);
	IS(st.st_mtim.tv_sec == 5);
	IS(utimensat(AT_FDCWD, "t", NULL, 0) == 0 && of("t")->st_mtim.tv_sec > 1500000000);
	IS(put("t", "y", 0644) == 0 && of("t")->st_mtim.tv_sec > 1500000000);
	symlink("t", "tl");
	IS(utimensat(AT_FDCWD, "tl", t, AT_SYMLINK_NOFOLLOW) == 0 && of("tl")->st_mtim.tv_sec == 1100000000);
	unlink("t"), unlink("tl");
}

static void unlinked(void)
{
	char buf[8];
	int fd = open("u", O_CREAT | O_RDWR, 0600);

	IS(write(fd, "12345", 5) == 5 && unlink("u") == 0);
	IS(fstat(fd, &st) == 0 && st.st_size == 5);
	IS(ftruncate(fd, 2) == 0 && fstat(fd, &st) == 0 && st.st_size == 2);
	IS(fchmod(fd, 0644) == 0);
	IS(pwrite(fd, "ab", 2, 2) == 2 && pread(fd, buf, 8, 0) == 4 && !memcmp(buf, "12ab", 4));
	put("u", "other", 0600);
	IS(fstat(fd, &st) == 0 && st.st_size == 4);
	close(fd);
	unlink("u");
}

static void attributes(void)
{
	char buf[256];

	put("x", "x", 0644);
	if (setxattr("x", "user.one", "1", 1, 0) < 0) {
		IS(errno == EOPNOTSUPP);	/* a kernel without CONFIG_9P_FS ... user attributes */
		unlink("x");
		return;
	}
	IS(getxattr("x", "user.one", buf, sizeof(buf)) == 1 && buf[0] == '1');
	IS(listxattr("x", buf, sizeof(buf)) == 9 && !strcmp(buf, "user.one"));
	FAILS(setxattr("x", "user.one", "2", 1, XATTR_CREATE), EEXIST);
	IS(removexattr("x", "user.one") == 0);
	FAILS(getxattr("x", "user.one", buf, sizeof(buf)), ENODATA);
	unlink("x");
}

/* ---- permissions --------------------------------------------------------- */

static void stranger(void)
{
	FAILS(open("private", O_RDONLY), EACCES);
	FAILS(open("readable", O_WRONLY), EACCES);
	IS(open("readable", O_RDONLY) >= 0);
	FAILS(open("closed/f", O_RDONLY), EACCES);
	FAILS(unlink("closed/f"), EACCES);
	FAILS(chmod("readable", 0777), EPERM);
	FAILS(chown("readable", 1000, 1000), EPERM);
	FAILS(open("new", O_CREAT | O_RDWR, 0644), EACCES);
	FAILS(mkdir("new", 0755), EACCES);
	FAILS(rename("readable", "r2"), EACCES);
	IS(put("open/mine", "m", 0600) == 0);
	IS(of("open/mine")->st_uid == 1000 && st.st_gid == 1000);
	IS(chmod("open/mine", 04755) == 0 && of("open/mine")->st_mode == (S_IFREG | 04755));
	IS(chmod("open/mine", 0600) == 0);
	IS(mkdir("open/mydir", 0700) == 0);
	IS(put("sticky/mine", "m", 0666) == 0);
}

static void another(void)
{
	FAILS(open("open/mine", O_RDONLY), EACCES);
	FAILS(open("open/mydir/x", O_CREAT | O_RDWR, 0600), EACCES);
	/* A sticky directory: all may make, and only who made may take away. */
	IS(put("sticky/yours", "y", 0666) == 0);
	FAILS(unlink("sticky/mine"), EPERM);
	FAILS(rename("sticky/mine", "sticky/x"), EPERM);
	FAILS(rename("sticky/yours", "sticky/mine"), EPERM);
	IS(unlink("sticky/yours") == 0);
	IS(unlink("open/mine") == 0);		/* not sticky: by the directory's permissions */
	IS(open("groups", O_RDONLY) >= 0);
	FAILS(open("groups", O_WRONLY), EACCES);
}

static void permissions(void)
{
	umask(0);
	put("private", "p", 0600);
	put("readable", "r", 0644);
	put("groups", "g", 0640);
	IS(chown("groups", 0, 2000) == 0 && of("groups")->st_gid == 2000);
	IS(mkdir("closed", 0700) == 0 && mkdir("open", 0777) == 0 && mkdir("sticky", 01777) == 0);
	put("closed/f", "f", 0666);
	as(1000, 1000, stranger);
	as(2000, 2000, another);
	IS(unlink("sticky/mine") == 0);
	/* A set-group-ID directory gives its group. */
	IS(mkdir("sg", 0755) == 0 && chown("sg", 0, 77) == 0 && chmod("sg", 02755) == 0);
	put("sg/f", "", 0644);
	IS(of("sg/f")->st_gid == 77);
	IS(mkdir("sg/d", 0755) == 0 && of("sg/d")->st_gid == 77 && st.st_mode & S_ISGID);
	/* chown takes set-user-ID away. */
	put("suid", "", 0644);
	IS(chmod("suid", 06755) == 0 && chown("suid", 5, 5) == 0 && !(of("suid")->st_mode & S_ISUID));
	umask(027);
	put("masked", "", 0666);
	IS(of("masked")->st_mode == (S_IFREG | 0640));
	umask(022);
	IS(!system("rm -r private readable groups closed open sticky sg suid masked"));
}

static void locks(void)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 10 };
	int fd = open("lock", O_CREAT | O_RDWR, 0600), status;
	pid_t pid;

	IS(fcntl(fd, F_SETLK, &l) == 0);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		int other = open("lock", O_RDWR);

		wrong = 0;
		FAILS(fcntl(other, F_SETLK, &l), EAGAIN);
		l.l_start = 10;
		IS(fcntl(other, F_SETLK, &l) == 0);
		_exit((int)wrong);
	}
	waitpid(pid, &status, 0);
	IS(status == 0);
	close(fd);
	unlink("lock");
}

/* ---- random reads and writes against a model ------------------------------ */

#define ROOM	(1 << 18)

static uint64_t seed = 88172645463325252ull;

static uint32_t any(uint32_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 11) % below;
}

static int against_model(unsigned operations)
{
	static uint8_t model[ROOM], buf[ROOM];
	int fd = open("model", O_CREAT | O_RDWR | O_TRUNC, 0644);
	uint32_t size = 0;

	for (unsigned i = 0; i < operations; i++) {
		uint32_t at = any(ROOM), n = 1 + any(any(4) ? 5000 : 60000), what = any(10);

		if (i % 500 == 0) {
			printf("model %u\n", i);
			fflush(stdout);
		}
		n = n < ROOM - at ? n : ROOM - at;
		if (what < 4) {
			for (uint32_t k = 0; k < n; k++)
				buf[k] = (uint8_t)(i + k * 3);
			if (at > size)
				memset(model + size, 0, at - size);
			memcpy(model + at, buf, n);
			size = at + n > size ? at + n : size;
			if (pwrite(fd, buf, n, at) != (ssize_t)n)
				return printf("write %u at %u: %s\n", n, at, strerror(errno));
		} else if (what < 8) {
			uint32_t want = at >= size ? 0 : n < size - at ? n : size - at;
			ssize_t got = pread(fd, buf, n, at);

			if (got != (ssize_t)want || memcmp(buf, model + at, want))
				return printf("operation %u: %u bytes at %u of %u: %zd, or other ones (%s)\n", i, n, at,
					      size, got, got < 0 ? strerror(errno) : "");
		} else if (what == 8) {
			if (at > size)
				memset(model + size, 0, at - size);
			if (ftruncate(fd, at) < 0 || fstat(fd, &st) < 0 || st.st_size != at)
				return printf("truncate to %u\n", at);
			size = at;
		} else {
			close(fd);
			fd = open("model", O_RDWR);
			if (fd < 0 || fstat(fd, &st) < 0 || st.st_size != size)
				return printf("size %jd, and not %u\n", (intmax_t)st.st_size, size);
		}
	}
	close(fd);
	unlink("model");
	return 0;
}

int main(int argc, char **argv)
{
	unsigned operations = 2000;

	if (argc > 2 && !strcmp(argv[1], "-n")) {
		operations = (unsigned)atoi(argv[2]);
		argv += 2;
		argc -= 2;
	}
	if (argc != 2 || chdir(argv[1]) < 0) {
		fprintf(stderr, "usage: posix [-n OPERATIONS] DIRECTORY\n");
		return 2;
	}
	umask(022);
	files();
	truncation_and_holes();
	directories();
	renames();
	links();
	special();
	times();
	unlinked();
	attributes();
	permissions();
	locks();
	wrong += against_model(operations) != 0;
	printf("posix: %u questions, %u wrong\n", asked, wrong);
	return wrong != 0;
}
