/* A session saved as bytes and given to another server: fids, open files, locks; and what was replaced. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "p9/client.h"
#include "p9/server.h"
#include "p9/state.h"
#include "state/codec.h"

static char dir[64];
static struct client c;

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *f)
{
	remove(path);
	return 0;
}

static int begin(void **state)
{
	strcpy(dir, "p9-state-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	client_start(&c, dir, "");
	assert_int_equal(client_attach(&c, 0, 0), 0);
	return 0;
}

static int end(void **state)
{
	client_stop(&c);
	nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	return 0;
}

static const char *host(const char *name)
{
	static char path[2][512];
	static int turn;

	turn ^= 1;
	snprintf(path[turn], sizeof(path[turn]), "%s/%s", dir, name);
	return path[turn];
}

static void make(uint32_t fid, const char *name, const char *text)
{
	assert_int_equal(client_walk(&c, 0, fid, ""), 0);
	assert_int_equal(client_create(&c, fid, name, O_RDWR, 0644), 0);
	assert_int_equal(client_write(&c, fid, 0, text, (uint32_t)strlen(text)), (int)strlen(text));
}

static struct state_buf save(void)
{
	struct p9_session *ss = p9_connection_session(c.connection);
	struct skep_error e = { "" };
	struct p9_session_model m;
	struct state_buf b = { 0 };

	p9_session_drain(ss);
	p9_session_export(ss, &m);
	assert_int_equal(p9_session_validate(ss, &m, &e), 0);
	assert_int_equal(state_encode(&p9_session_record, "s", &m, 1, &b, &e), 0);
	state_free(&p9_session_record, &m);
	return b;
}

/* The client is another machine's now; what was said to standard error is in `said`. */
static char said[4096];
static const char *restore_options = "";

static void restore(const struct state_buf *b)
{
	struct skep_error e = { "" };
	struct p9_session_model m = { 0 };
	struct p9_session *ss;
	int keep = dup(2), out = open(host(".said"), O_RDWR | O_CREAT | O_TRUNC, 0600);
	ssize_t n;

	client_stop(&c);
	client_start(&c, dir, restore_options);
	assert_int_equal(client_version(&c, 8192), 0);	/* its thread is there, and idle */
	ss = p9_connection_session(c.connection);
	p9_session_reset(ss);
	assert_int_equal(state_decode(&p9_session_record, "s", b->data, b->len, &m, NULL, NULL, &e), 0);
	assert_int_equal(p9_session_validate(ss, &m, &e), 0);
	dup2(out, 2);
	p9_session_commit(ss, &m);
	dup2(keep, 2);
	n = pread(out, said, sizeof(said) - 1, 0);
	said[n > 0 ? n : 0] = '\0';
	close(out);
	close(keep);
	unlink(host(".said"));
	state_free(&p9_session_record, &m);
}

static void goes_on(void **state)
{
	struct state_buf b, again;
	struct client_attr a;
	char buf[32];

	assert_int_equal(client_call(&c, P9_TMKDIR, "dsdd", 0u, "d", 0755u, 0u), 0);
	assert_int_equal(client_walk(&c, 0, 1, "d"), 0);
	assert_int_equal(client_walk(&c, 1, 2, ""), 0);
	assert_int_equal(client_create(&c, 2, "f", O_RDWR | P9_OPEN_TRUNC, 0640), 0);
	assert_int_equal(client_write(&c, 2, 0, "hello", 5), 5);
	assert_int_equal(client_walk(&c, 1, 3, "f"), 0);
	assert_int_equal(client_walk(&c, 0, 4, ""), 0);
	assert_int_equal(client_open(&c, 4, O_RDONLY), 0);
	assert_int_equal(client_call(&c, P9_TLOCK, "dbdqqds", 2u, P9_LOCK_WRITE, 0u, 3ull, 5ull, 9u, "me"), 0);
	assert_int_equal(client_walk(&c, 1, 5, "f"), 0);
	assert_int_equal(client_call(&c, P9_TXATTRCREATE, "dsqd", 5u, "user.half", 4ull, 0u), 0);
	assert_int_equal(client_write(&c, 5, 0, "ab", 2), 2);
	b = save();
	restore(&b);
	assert_string_equal(said, "");
	again = save();
	assert_int_equal(again.len, b.len);
	assert_memory_equal(again.data, b.data, b.len);
	assert_int_equal(client_read(&c, 2, 0, buf, 32), 5);
	assert_memory_equal(buf, "hello", 5);
	assert_int_equal(client_write(&c, 2, 5, " again", 6), 6);
	assert_int_equal(client_getattr(&c, 3, &a), 0);
	assert_int_equal(a.size, 11);
	assert_int_equal(a.mode, S_IFREG | 0640);
	assert_int_equal(client_call(&c, P9_TREADDIR, "dqd", 4u, 0ull, 4096u), 0);
	assert_true(c.body.left > 40);
	assert_int_equal(client_call(&c, P9_TGETLOCK, "dbqqds", 2u, P9_LOCK_WRITE, 0ull, 0ull, 1u, "me"), 0);
	assert_int_equal(p9_get8(&c.body), P9_LOCK_WRITE);
	assert_int_equal(p9_get64(&c.body), 3);
	assert_int_equal(p9_get64(&c.body), 5);
	assert_int_equal(client_write(&c, 5, 2, "cd", 2), 2);
	assert_int_equal(client_clunk(&c, 5), 0);
	assert_int_equal(getxattr(host("d/f"), "user.half", buf, 32), 4);
	assert_memory_equal(buf, "abcd", 4);
	state_buf_free(&b);
	state_buf_free(&again);
}

/* Renamed while it was saved: found by its new name, since the save has that. */
static void renamed_before(void **state)
{
	struct state_buf b;
	char buf[8];

	make(1, "f", "abc");
	assert_int_equal(client_call(&c, P9_TRENAMEAT, "dsds", 0u, "f", 0u, "g"), 0);
	b = save();
	restore(&b);
	assert_int_equal(client_read(&c, 1, 0, buf, 8), 3);
	state_buf_free(&b);
}

static void replaced(void **state)
{
	struct state_buf b;
	struct client_attr a;
	char buf[8];
	int fd;

	make(1, "f", "abc");
	make(2, "g", "abc");
	assert_int_equal(client_walk(&c, 0, 3, "f"), 0);
	b = save();
	/* Another file in its place, written as the first one was. */
	fd = open(host("new"), O_CREAT | O_WRONLY, 0600);
	assert_int_equal(write(fd, "xyz", 3), 3);
	close(fd);
	assert_int_equal(rename(host("new"), host("f")), 0);
	restore(&b);
	assert_non_null(strstr(said, "'f'"));
	assert_null(strstr(said, "'g'"));
	assert_int_equal(client_read(&c, 1, 0, buf, 8), -ESTALE);
	assert_int_equal(client_write(&c, 1, 0, "no", 2), -ESTALE);
	assert_int_equal(client_getattr(&c, 1, &a), -ESTALE);
	assert_int_equal(client_getattr(&c, 3, &a), -ESTALE);
	assert_int_equal(client_setattr(&c, 1, P9_SET_SIZE, 0, 0, 0, 0), -ESTALE);
	assert_int_equal(client_call(&c, P9_TFSYNC, "dd", 1u, 0u), -ESTALE);
	assert_int_equal(client_clunk(&c, 1), 0);
	assert_int_equal(client_read(&c, 2, 0, buf, 8), 3);
	/* The new one can be had by its name. */
	assert_int_equal(client_walk(&c, 0, 1, "f"), 0);
	assert_int_equal(client_open(&c, 1, O_RDONLY), 0);
	assert_int_equal(client_read(&c, 1, 0, buf, 8), 3);
	assert_memory_equal(buf, "xyz", 3);
	state_buf_free(&b);
}

static void replaced_directory(void **state)
{
	struct state_buf b;
	struct client_attr a;

	assert_int_equal(mkdir(host("d"), 0755), 0);
	assert_int_equal(mkdir(host("d/e"), 0755), 0);
	assert_int_equal(client_walk(&c, 0, 1, "d/e"), 0);
	b = save();
	assert_int_equal(rename(host("d"), host("was")), 0);
	assert_int_equal(symlink("was", host("d")), 0);
	restore(&b);
	assert_int_equal(client_getattr(&c, 1, &a), -ESTALE);
	assert_true(client_call(&c, P9_TMKDIR, "dsdd", 1u, "x", 0755u, 0u) < 0);
	state_buf_free(&b);
}

static void changed(void **state)
{
	struct state_buf b;
	char buf[8];
	int fd;

	make(1, "f", "abc");
	b = save();
	usleep(20000);
	fd = open(host("f"), O_WRONLY);
	assert_int_equal(write(fd, "ABCD", 4), 4);
	close(fd);
	restore(&b);
	assert_non_null(strstr(said, "'f'"));
	assert_non_null(strstr(said, "was changed"));
	assert_int_equal(client_read(&c, 1, 0, buf, 8), 4);
	state_buf_free(&b);
}

/* The machine that was saved keeps it; the one that is restored is told. */
static void unlinked(void **state)
{
	struct state_buf b;
	char buf[8];

	make(1, "f", "abc");
	assert_int_equal(client_call(&c, P9_TUNLINKAT, "dsd", 0u, "f", 0u), 0);
	b = save();
	assert_int_equal(client_read(&c, 1, 0, buf, 8), 3);
	assert_int_equal(client_write(&c, 1, 0, "x", 1), 1);
	restore(&b);
	assert_non_null(strstr(said, "'f'"));
	assert_int_equal(client_read(&c, 1, 0, buf, 8), -ESTALE);
	state_buf_free(&b);
}

/* The file is hostile: whatever is changed in it, it is refused or does no harm. */
static void hostile(void **state)
{
	struct p9_session *ss = p9_connection_session(c.connection);
	struct skep_error e = { "" };
	struct state_buf b;
	unsigned taken = 0;

	assert_int_equal(mkdir(host("d"), 0755), 0);
	assert_int_equal(client_walk(&c, 0, 1, "d"), 0);
	make(2, "f", "abc");
	assert_int_equal(client_call(&c, P9_TLOCK, "dbdqqds", 2u, P9_LOCK_WRITE, 0u, 3ull, 5ull, 9u, "me"), 0);
	b = save();
	for (size_t i = 0; i < b.len; i++) {
		for (unsigned k = 0; k < 8; k++) {
			struct p9_session_model m = { 0 };

			b.data[i] ^= (uint8_t)(1u << k);
			if (state_decode(&p9_session_record, "s", b.data, b.len, &m, NULL, NULL, &e) == 0) {
				if (p9_session_validate(ss, &m, &e) == 0) {
					p9_session_reset(ss);
					p9_session_commit(ss, &m);
					taken++;
				}
				state_free(&p9_session_record, &m);
			}
			b.data[i] ^= (uint8_t)(1u << k);
		}
	}
	assert_true(taken > 10);
	state_buf_free(&b);
	assert_int_equal(client_version(&c, 8192), 0);
}

#define T(f)	cmocka_unit_test_setup_teardown(f, begin, end)

/* A half-written attribute of a file that somebody has edited, or that goes on in a share that is read-only. */
static void attributes_that_may_not(void **state)
{
	static const char given[] = "user.half.meta", ours[] = "user.skep.meta";
	uint8_t was[24], now[24];
	struct state_buf b;
	uint8_t *at;

	make(1, "f", "x");
	assert_int_equal(getxattr(host("f"), ours, was, sizeof(was)), 24);
	assert_int_equal(client_walk(&c, 0, 2, "f"), 0);
	assert_int_equal(client_call(&c, P9_TXATTRCREATE, "dsqd", 2u, given, 24ull, 0u), 0);
	assert_int_equal(client_write(&c, 2, 0, "abcdefghijklmnopqrstuvwx", 24), 24);
	b = save();
	restore_options = "ro";
	restore(&b);
	restore_options = "";
	assert_int_equal(client_clunk(&c, 2), -EROFS);
	assert_int_equal(getxattr(host("f"), given, now, sizeof(now)), -1);
	at = memmem(b.data, b.len, given, strlen(given));
	assert_non_null(at);
	memcpy(at, ours, strlen(ours));
	restore(&b);
	assert_int_equal(client_clunk(&c, 2), -EACCES);
	assert_int_equal(getxattr(host("f"), ours, now, sizeof(now)), 24);
	assert_memory_equal(was, now, 24);
	state_buf_free(&b);
}

/* However a guest cuts its locks up, there are no more than a save can carry. */
static void locks_in_pieces(void **state)
{
	struct state_buf b;

	make(1, "f", "x");
	assert_int_equal(client_call(&c, P9_TLOCK, "dbdqqds", 1u, P9_LOCK_WRITE, 0u, 0ull, 0ull, 9u, "me"), 0);
	for (uint64_t i = 1; i < P9_LOCKS_MAX + 100; i++)
		client_call(&c, P9_TLOCK, "dbdqqds", 1u, P9_LOCK_UNLOCK, 0u, 2 * i, 1ull, 9u, "me");
	b = save();
	restore(&b);
	state_buf_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(goes_on), T(renamed_before), T(replaced), T(replaced_directory), T(changed), T(unlinked),
		T(hostile), T(attributes_that_may_not), T(locks_in_pieces),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
