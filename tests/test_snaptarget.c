/* A saved file appears whole or not at all. */
#include "snap_helper.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "snapshot/container.h"

static void put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static void holds(const char *path, const char *text)
{
	char buf[64] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(read(fd, buf, sizeof(buf) - 1), strlen(text));
	assert_string_equal(buf, text);
	close(fd);
}

static unsigned files(void)
{
	DIR *d = opendir(shot_dir);
	unsigned n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

static void begin(struct snap_target *t, const char *path)
{
	struct skep_error e = { "" };

	if (snap_target_open(t, path, &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(write(t->fd, "new", 3), 3);
}

static void commits(struct snap_target *t, bool sync)
{
	struct skep_error e = { "" };

	if (snap_target_commit(t, sync, &e) < 0)
		fail_msg("%s", e.text);
	assert_null(t->path);
	snap_target_abort(t);	/* nothing to do */
}

static void refused(const char *path, int err, const char *words)
{
	struct skep_error e = { "" };
	struct snap_target t;

	assert_int_equal(snap_target_open(&t, path, &e), -err);
	if (!strstr(e.text, words))
		fail_msg("'%s' is not in '%s'", words, e.text);
	snap_target_abort(&t);
}

static void new_file(void **state)
{
	struct snap_target t;
	struct stat st;
	mode_t mask = umask(0);

	begin(&t, in_dir("a"));
	umask(mask);
	assert_int_equal(access(in_dir("a"), F_OK), -1);
	commits(&t, true);
	holds(in_dir("a"), "new");
	assert_int_equal(stat(in_dir("a"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(files(), 1);
	snap_target_abort(&(struct snap_target){ 0 });
}

static void relative_path(void **state)
{
	char *was = getcwd(NULL, 0);
	struct snap_target t;

	assert_int_equal(chdir(shot_dir), 0);
	begin(&t, "a");
	commits(&t, false);
	holds("a", "new");
	assert_int_equal(chdir(was), 0);
	free(was);
}

static void over_an_old_one(void **state)
{
	struct snap_target t;
	int fd;

	put(in_dir("a"), "old");
	begin(&t, in_dir("a"));
	holds(in_dir("a"), "old");
	snap_target_abort(&t);
	holds(in_dir("a"), "old");
	assert_int_equal(files(), 1);
	/* Who has the old one open keeps it. */
	fd = open(in_dir("a"), O_RDONLY | O_CLOEXEC);
	begin(&t, in_dir("a"));
	commits(&t, false);
	holds(in_dir("a"), "new");
	{
		char buf[4] = "";

		assert_int_equal(read(fd, buf, 3), 3);
		assert_string_equal(buf, "old");
	}
	close(fd);
	assert_int_equal(files(), 1);
}

static void killed(void **state)
{
	unsigned round;

	put(in_dir("a"), "old");
	for (round = 0; round < 3; round++) {
		pid_t pid = fork();
		int status;

		if (!pid) {
			struct snap_target t;
			struct skep_error e;

			if (snap_target_open(&t, in_dir("a"), &e) < 0)
				_exit(1);
			if (write(t.fd, "half", 4) != 4)
				_exit(1);
			raise(SIGKILL);
		}
		waitpid(pid, &status, 0);
		assert_true(WIFSIGNALED(status));
		holds(in_dir("a"), "old");
	}
	assert_int_equal(files(), 1);
}

/* A crash between link and rename leaves one file, which the next save removes. */
static const char *temporary(const char *name)
{
	static char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/.skep-%016llx.tmp", shot_dir,
		 (unsigned long long)snap_sum(name, strlen(name)));
	return path;
}

static void stale_temporary(void **state)
{
	struct snap_target t;
	struct skep_error e = { "" };

	put(temporary("a"), "left behind");
	put(temporary("b"), "of another target");
	begin(&t, in_dir("a"));
	commits(&t, true);
	holds(in_dir("a"), "new");
	assert_int_equal(files(), 2);
	/* It is not removed while somebody writes it ... */
	assert_int_equal(snap_target_open_named(&t, in_dir("b"), &e), 0);
	assert_int_equal(files(), 2);
	assert_int_equal(snap_target_open_named(&(struct snap_target){ 0 }, in_dir("b"), &e), -EBUSY);
	assert_non_null(strstr(e.text, "another save"));
	{
		struct snap_target other;

		begin(&other, in_dir("b"));
		assert_int_equal(snap_target_commit(&other, false, &e), -EBUSY);
	}
	commits(&t, false);
	assert_int_equal(files(), 2);
	/* ... nor if it is no file at all. */
	assert_int_equal(mkdir(temporary("c"), 0700), 0);
	begin(&t, in_dir("c"));
	assert_int_equal(snap_target_commit(&t, false, &e), -EISDIR);
	assert_non_null(strstr(e.text, "remove"));
	assert_int_equal(snap_target_open_named(&t, in_dir("c"), &e), -EISDIR);
	assert_int_equal(files(), 3);
}

/* Where there are no unnamed files. */
static void named_from_the_beginning(void **state)
{
	struct snap_target t;
	struct skep_error e = { "" };
	unsigned round;
	int status;
	pid_t pid;

	put(in_dir("a"), "old");
	for (round = 0; round < 3; round++) {
		pid = fork();
		if (!pid) {
			if (snap_target_open_named(&t, in_dir("a"), &e) < 0)
				_exit(1);
			raise(SIGKILL);
		}
		waitpid(pid, &status, 0);
		assert_true(WIFSIGNALED(status));
		holds(in_dir("a"), "old");
		assert_int_equal(files(), 2);	/* however often */
	}
	assert_int_equal(snap_target_open_named(&t, in_dir("a"), &e), 0);
	assert_int_equal(write(t.fd, "new", 3), 3);
	holds(in_dir("a"), "old");
	commits(&t, true);
	holds(in_dir("a"), "new");
	assert_int_equal(files(), 1);
	assert_int_equal(snap_target_open_named(&t, in_dir("a"), &e), 0);
	assert_int_equal(files(), 2);
	snap_target_abort(&t);
	assert_int_equal(files(), 1);
}

static void two_at_once(void **state)
{
	struct snap_target a, b;

	begin(&a, in_dir("a"));
	begin(&b, in_dir("a"));
	assert_int_equal(pwrite(b.fd, "two", 3, 0), 3);
	commits(&a, false);
	holds(in_dir("a"), "new");
	commits(&b, false);
	holds(in_dir("a"), "two");
	assert_int_equal(files(), 1);
}

static void what_cannot_be_a_target(void **state)
{
	struct snap_target t;
	struct skep_error e = { "" };
	char name[400];

	put(in_dir("file"), "old");
	mkdir(in_dir("dir"), 0700);
	mkfifo(in_dir("fifo"), 0600);
	assert_int_equal(symlink("file", in_dir("link")), 0);
	assert_int_equal(symlink("nowhere", in_dir("dangling")), 0);
	refused("", EISDIR, "names no file");
	refused("/", EISDIR, "names no file");
	refused(in_dir("dir/"), EISDIR, "names no file");
	refused(in_dir("dir/."), EISDIR, "names no file");
	refused(in_dir("dir/.."), EISDIR, "names no file");
	refused(in_dir("dir"), EISDIR, "is a directory");
	refused(in_dir("fifo"), EINVAL, "not a regular file");
	refused("/dev/null", EINVAL, "not a regular file");
	refused(in_dir("link"), ELOOP, "symbolic link to 'file'");
	refused(in_dir("dangling"), ELOOP, "symbolic link to 'nowhere'");
	refused(in_dir("none/a"), ENOENT, "directory");
	refused(in_dir("file/a"), ENOTDIR, "directory");
	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	refused(in_dir(name), ENAMETOOLONG, "too long");
	/* As long as a name may be. */
	name[255] = '\0';
	begin(&t, in_dir(name));
	commits(&t, false);
	holds(in_dir(name), "new");
	/* Somebody made a directory of it meanwhile. */
	begin(&t, in_dir("late"));
	mkdir(in_dir("late"), 0700);
	assert_int_equal(snap_target_commit(&t, false, &e), -EISDIR);
	holds(in_dir("file"), "old");
	assert_int_equal(files(), 7);
}

static void read_only_directory(void **state)
{
	struct snap_target t;
	struct skep_error e = { "" };

	refused("/proc/snapshot", ENOENT, "/proc/snapshot");
	/* Its directory goes away while it is written. */
	mkdir(in_dir("gone"), 0700);
	begin(&t, in_dir("gone/a"));
	assert_int_equal(rmdir(in_dir("gone")), 0);
	assert_int_equal(snap_target_commit(&t, false, &e), -ENOENT);
	assert_non_null(strstr(e.text, "gone/a"));
}

/* The limit on file sizes stands in for a disk that is full. */
static void no_room(void **state)
{
	static const uint64_t room[] = { 0, 2 * MiB, 3 * MiB + 100, 5 * MiB, 6 * MiB + 8000 };
	static const int levels[] = { 0, 1 };
	struct rlimit was, limit;
	struct test_ram ram;
	unsigned i, k, failures = 0;

	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &was);
	ram_init(&ram, 6 * MiB, 0);
	ram_fill(&ram, 0, 6 * MiB, 1, true);
	put(in_dir("a"), "old");
	for (k = 0; k < ARRAY_SIZE(levels); k++) {
		for (i = 0; i < ARRAY_SIZE(room); i++) {
			struct shot s = { .ram = &ram, .zstd_level = levels[k], .records = 3 };
			struct skep_error e = { "" };
			struct snap_target t;
			int err;

			assert_int_equal(snap_target_open(&t, in_dir("a"), &e), 0);
			limit = (struct rlimit){ room[i], was.rlim_max };
			setrlimit(RLIMIT_FSIZE, &limit);
			err = shot_write_fd(t.fd, &s, &e);
			setrlimit(RLIMIT_FSIZE, &was);
			if (err < 0) {
				assert_int_equal(err, -EFBIG);
				assert_non_null(strstr(e.text, "ulimit -f"));
				assert_non_null(strstr(e.text, "byte"));
				failures++;
			}
			snap_target_abort(&t);
			holds(in_dir("a"), "old");
		}
	}
	assert_true(failures >= 9);
	assert_int_equal(files(), 1);
	ram_free(&ram);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(new_file, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(relative_path, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(over_an_old_one, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(killed, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(stale_temporary, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(named_from_the_beginning, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(two_at_once, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(what_cannot_be_a_target, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(read_only_directory, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(no_room, make_dir, remove_dir),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
