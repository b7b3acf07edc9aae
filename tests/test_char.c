/* Character backends: peers that come and go, full buffers, files, the terminal. */
/* With _GNU_SOURCE, <signal.h> has the same REG_RAX as cpu/arch.h. */
#undef _GNU_SOURCE
#define _DEFAULT_SOURCE
#define _XOPEN_SOURCE 700
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <utmp.h>
#include <unistd.h>

#include "char/char.h"
#include "chip.h"
#include "vm/loop.h"

struct sink {
	struct vm *vm;
	struct char_backend *b;
	size_t room;
	uint8_t data[1 << 20];
	size_t len;
	unsigned breaks, drained;
};

static size_t sink_room(void *opaque) { return ((struct sink *)opaque)->room; }

static void sink_receive(void *opaque, const uint8_t *data, size_t len)
{
	struct sink *s = opaque;

	assert_true(len <= s->room);
	memcpy(s->data + s->len, data, len);
	s->len += len;
	s->room -= len;
}

static void sink_break(void *opaque) { ((struct sink *)opaque)->breaks++; }
static void sink_drained(void *opaque) { ((struct sink *)opaque)->drained++; }

static const struct char_receiver receiver = { sink_room, sink_receive, sink_break, sink_drained };

static struct sink *start(const char *spec, struct skep_error *e)
{
	struct vm_core_options o = { .ram = 1 * MiB, .seeded = true };
	struct sink *s = calloc(1, sizeof(*s));

	clock_init(&o.clock, CLOCK_MODE_REALTIME);
	s->vm = calloc(1, sizeof(*s->vm));
	if (vm_core_init(s->vm, &o, e) < 0)
		fail_msg("%s", e->text);
	device_lock(s->vm);
	s->room = sizeof(s->data);
	s->b = char_create(s->vm, "lpc.com1", spec, e);
	if (s->b)
		char_set_receiver(s->b, &receiver, s);
	return s;
}

static void end(struct sink *s)
{
	char_destroy(s->b);
	chip_vm_end(s->vm);
	free(s);
}

static void pump(struct sink *s)
{
	device_unlock(s->vm);
	loop_wake(s->vm);
	loop_iterate(s->vm);
	device_lock(s->vm);
}

static void pump_until(struct sink *s, size_t len)
{
	for (int i = 0; i < 2000 && s->len < len; i++) {
		pump(s);
		usleep(500);
	}
	assert_int_equal(s->len, len);
}

static void settle(struct sink *s)
{
	for (int i = 0; i < 6; i++)
		pump(s);
}

/* Reads exactly len bytes from the peer's end. */
static void expect(struct sink *s, int fd, const char *text)
{
	char buf[256] = "";
	size_t got = 0, len = strlen(text);

	for (int i = 0; i < 2000 && got < len; i++) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		ssize_t n;

		pump(s);
		if (poll(&p, 1, 1) <= 0)
			continue;
		n = read(fd, buf + got, len - got);
		got += n > 0 ? n : 0;
	}
	assert_string_equal(buf, text);
}

static void refused(const char *spec, const char *says)
{
	struct skep_error e = { .text = "" };
	struct sink *s = start(spec, &e);

	assert_null(s->b);
	if (!strstr(e.text, says) || !strstr(e.text, "lpc.com1"))
		fail_msg("'%s' does not say '%s'", e.text, says);
	end(s);
}

static char *temp(const char *name)
{
	static char path[100];

	snprintf(path, sizeof(path), "/tmp/skep-char-%d-%s", getpid(), name);
	return path;
}

static void test_file(void **state)
{
	struct skep_error e;
	char text[64] = "";
	struct sink *s;
	int fd;

	unlink(temp("file"));
	for (int i = 0; i < 2; i++) {
		s = start(temp("file"), &e);
		assert_non_null(s->b);
		char_write(s->b, i ? "second\n" : "first\n", i ? 7 : 6);
		end(s);
	}
	fd = open(temp("file"), O_RDONLY);
	assert_int_equal(read(fd, text, sizeof(text)), 13);
	assert_string_equal(text, "first\nsecond\n");
	close(fd);
	unlink(temp("file"));
	refused("/nonexistent/console", "cannot open '/nonexistent/console'");
	refused("/tmp", "cannot open '/tmp'");
	refused("", "empty");
}

static void test_null(void **state)
{
	struct skep_error e;
	struct sink *s = start("null", &e);

	for (int i = 0; i < 100000; i++)
		char_write(s->b, "0123456789", 10);
	assert_true(char_room(s->b) > 0);
	end(s);
}

/* Bytes written to /dev/full cannot be had back; the machine goes on. */
static void test_write_error(void **state)
{
	struct skep_error e;
	struct sink *s = start("/dev/full", &e);

	assert_non_null(s->b);
	for (int i = 0; i < 10; i++) {
		char_write(s->b, "x", 1);
		pump(s);
	}
	assert_true(char_room(s->b) > 0);
	end(s);
}

static int connect_unix(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(sa.sun_path, path);
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static void test_unix(void **state)
{
	struct skep_error e;
	char spec[120];
	struct stat st;
	struct sink *s;
	int fd;

	snprintf(spec, sizeof(spec), "unix=%s", temp("sock"));
	unlink(temp("sock"));
	s = start(spec, &e);
	assert_non_null(s->b);
	assert_int_equal(stat(temp("sock"), &st), 0);
	assert_int_equal(st.st_mode & 077, 0);
	refused(spec, "somebody listens");
	/* Before anybody came. */
	char_write(s->b, "early ", 6);
	fd = connect_unix(temp("sock"));
	assert_true(fd >= 0);
	expect(s, fd, "early ");
	assert_int_equal(write(fd, "hello", 5), 5);
	pump_until(s, 5);
	/* The next one gets what is written from now on. */
	close(fd);
	settle(s);
	char_write(s->b, "between ", 8);
	fd = connect_unix(temp("sock"));
	expect(s, fd, "between ");
	char_write(s->b, "now", 3);
	expect(s, fd, "now");
	close(fd);
	end(s);
	assert_int_equal(access(temp("sock"), F_OK), -1);

	/* One that nobody listens on any more is replaced; another kind of file is not. */
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	strcpy(sa.sun_path, temp("sock"));
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	close(fd);
	s = start(spec, &e);
	assert_non_null(s->b);
	end(s);
	fd = open(temp("sock"), O_CREAT | O_WRONLY, 0600);
	close(fd);
	refused(spec, "not a socket");
	unlink(temp("sock"));
	refused("unix=", "1 to 107 bytes");
	refused("unix=/nonexistent/sock", "cannot make the socket");
}

/* With nobody there only the last CHAR_KEEP bytes stay. */
static void test_keep(void **state)
{
	struct skep_error e;
	char spec[120], buf[4096];
	struct sink *s;
	size_t got = 0;
	uint32_t last = 0;
	int fd;

	snprintf(spec, sizeof(spec), "unix=%s", temp("keep"));
	s = start(spec, &e);
	for (uint32_t i = 0; i < 100000; i++)
		char_write(s->b, &i, 4);
	fd = connect_unix(temp("keep"));
	for (int i = 0; i < 500; i++) {
		ssize_t n;

		pump(s);
		n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
		if (n <= 0)
			continue;
		got += n;
		memcpy(&last, buf + n - 4, 4);
		i = 0;
	}
	assert_int_equal(got, CHAR_KEEP);
	assert_int_equal(last, 99999);
	close(fd);
	end(s);
}

static void test_full_and_drained(void **state)
{
	struct skep_error e;
	char spec[120], buf[65536];
	struct sink *s;
	size_t sent = 0, got = 0;
	int fd;

	snprintf(spec, sizeof(spec), "unix=%s", temp("full"));
	s = start(spec, &e);
	fd = connect_unix(temp("full"));
	settle(s);
	while (char_room(s->b)) {
		char_write(s->b, buf, MIN(char_room(s->b), sizeof(buf)));
		sent += CHAR_LIMIT;
		settle(s);
	}
	s->drained = 0;
	for (int i = 0; i < 200; i++) {
		ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);

		pump(s);
		if (n > 0) {
			got += n;
			i = 0;
		}
	}
	assert_true(s->drained > 0);
	assert_true(got <= sent && got > 0);
	/* A peer that leaves a full buffer behind must not hold the device. */
	while (char_room(s->b)) {
		char_write(s->b, buf, MIN(char_room(s->b), sizeof(buf)));
		settle(s);
	}
	s->drained = 0;
	close(fd);
	settle(s);
	assert_true(char_room(s->b) > 0);
	assert_int_equal(s->drained, 1);
	end(s);
}

/* The device takes ten bytes at a time; the host is held back, not cut off. */
static void test_pacing(void **state)
{
	struct skep_error e;
	char spec[120], buf[5000];
	struct sink *s;
	int fd;

	snprintf(spec, sizeof(spec), "unix=%s", temp("pace"));
	s = start(spec, &e);
	s->room = 0;
	fd = connect_unix(temp("pace"));
	for (size_t i = 0; i < sizeof(buf); i++)
		buf[i] = i * 13;
	assert_int_equal(write(fd, buf, sizeof(buf)), sizeof(buf));
	close(fd);		/* what was sent before still counts */
	for (int i = 0; i < 10; i++)
		settle(s);
	assert_int_equal(s->len, 0);
	for (size_t i = 0; i < sizeof(buf) / 10; i++) {
		s->room = 10;
		char_accept(s->b);
		settle(s);
		assert_int_equal(s->len, (i + 1) * 10);
	}
	assert_memory_equal(s->data, buf, sizeof(buf));
	end(s);
}

static void tcp_once(const char *spec, struct sockaddr *sa, socklen_t len)
{
	struct skep_error e = { .text = "" };
	struct sink *s = start(spec, &e);
	int fd;

	if (!s->b)
		fail_msg("%s", e.text);
	fd = socket(sa->sa_family, SOCK_STREAM, 0);
	assert_int_equal(connect(fd, sa, len), 0);
	char_write(s->b, "ping", 4);
	expect(s, fd, "ping");
	assert_int_equal(send(fd, "pong!", 5, 0), 5);
	pump_until(s, 5);
	refused(spec, "cannot listen");
	close(fd);
	end(s);
}

static void test_tcp(void **state)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	unsigned port = 20000 + getpid() % 20000;
	char spec[64];
	int fd;

	snprintf(spec, sizeof(spec), "tcp=127.0.0.1:%u", port);
	v4.sin_port = htons(port);
	tcp_once(spec, (struct sockaddr *)&v4, sizeof(v4));
	fd = socket(AF_INET6, SOCK_STREAM, 0);
	v6.sin6_port = 0;
	if (fd >= 0 && bind(fd, (struct sockaddr *)&v6, sizeof(v6)) == 0) {
		snprintf(spec, sizeof(spec), "tcp=[::1]:%u", port + 1);
		v6.sin6_port = htons(port + 1);
		tcp_once(spec, (struct sockaddr *)&v6, sizeof(v6));
	}
	if (fd >= 0)
		close(fd);
	refused("tcp=localhost:1", "tcp=127.0.0.1:5555");
	refused("tcp=127.0.0.1", "tcp=127.0.0.1:5555");
	refused("tcp=::1:5", "tcp=127.0.0.1:5555");
	refused("tcp=127.0.0.1:99999", "tcp=127.0.0.1:5555");
	refused("tcp=[::1:5", "tcp=127.0.0.1:5555");
}

/* Runs with stderr in a pipe, to learn the name that is printed. */
static struct sink *start_pty(char name[64])
{
	struct skep_error e = { .text = "" };
	int saved = dup(2), p[2];
	char line[128] = "";
	struct sink *s;

	assert_int_equal(pipe(p), 0);
	dup2(p[1], 2);
	s = start("pty", &e);
	dup2(saved, 2);
	close(saved);
	close(p[1]);
	if (!s->b)
		fail_msg("%s", e.text);
	assert_true(read(p[0], line, sizeof(line) - 1) > 0);
	close(p[0]);
	assert_int_equal(sscanf(line, "skep: lpc.com1 is %63s", name), 1);
	return s;
}

static void test_pty(void **state)
{
	char name[64];
	struct sink *s = start_pty(name);

	for (int i = 0; i < 2; i++) {
		int fd = open(name, O_RDWR | O_NOCTTY);

		assert_true(fd >= 0);
		s->len = 0;
		/* Raw: neither echoed nor edited. */
		assert_int_equal(write(fd, "a\r\003z", 4), 4);
		pump_until(s, 4);
		assert_memory_equal(s->data, "a\r\003z", 4);
		char_write(s->b, "out\n", 4);
		expect(s, fd, "out\n");
		close(fd);
		settle(s);
		assert_true(char_room(s->b) > 0);
	}
	end(s);
}

/* A guest that does not read, a peer that leaves: neither loses anything, nobody waits for ever. */
static void test_pty_gone_unread(void **state)
{
	static uint8_t much[8192];
	char name[64], buf[8192];
	struct sink *s = start_pty(name);
	int fd = open(name, O_RDWR | O_NOCTTY);
	size_t got = 0;
	ssize_t n;

	assert_true(fd >= 0);
	assert_int_equal(write(fd, "a", 1), 1);
	pump_until(s, 1);
	s->room = 0;
	assert_int_equal(write(fd, "unread", 6), 6);
	close(fd);
	for (int i = 0; i < 40; i++) {
		memset(much, 'A' + i, sizeof(much));
		if (char_room(s->b))
			char_write(s->b, much, sizeof(much));
		pump(s);
	}
	assert_int_equal(char_room(s->b), CHAR_LIMIT);

	s->room = sizeof(s->data) - 1;
	char_accept(s->b);
	pump_until(s, 7);
	assert_memory_equal(s->data, "aunread", 7);

	/* Whoever comes gets the last words, whatever the pty itself held before. */
	fd = open(name, O_RDWR | O_NOCTTY | O_NONBLOCK);
	assert_true(fd >= 0);
	for (int i = 0; i < 400; i++) {
		pump(s);
		usleep(1000);
		while ((n = read(fd, buf, sizeof(buf))) > 0) {
			got += n;
			buf[0] = buf[n - 1];
		}
	}
	assert_true(got >= CHAR_KEEP);
	assert_int_equal(buf[0], much[0]);
	close(fd);
	end(s);
}

/* --- the terminal: a child with a pty for everything --- */

enum way { CLOSE, EXIT, TERM, SEGV, ABRT };

static void child(enum way way)
{
	struct skep_error e = { .text = "" };
	struct sink *s;

	s = start("stdio", &e);
	if (!s->b)
		_exit(99);
	while (!s->len || s->data[s->len - 1] != '!') {
		pump(s);
		usleep(500);
	}
	/* a, Ctrl-A, !  and one break */
	if (s->len != 3 || s->data[0] != 'a' || s->data[1] != 1 || s->breaks != 1)
		_exit(98);
	char_write(s->b, "done", 4);
	settle(s);
	switch (way) {
	case CLOSE:
		end(s);
		pause();
		break;
	case EXIT:
		exit(0);
	case TERM:
		pause();
		break;
	case SEGV:
		raise(SIGSEGV);
		break;
	case ABRT:
		raise(SIGABRT);
		break;
	}
	_exit(97);
}

static void read_until(int fd, const char *text)
{
	char buf[4096] = "";
	size_t len = 0;

	for (int i = 0; i < 500 && !strstr(buf, text); i++) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		ssize_t n;

		if (poll(&p, 1, 10) <= 0)
			continue;
		n = read(fd, buf + len, sizeof(buf) - 1 - len);
		len += n > 0 ? n : 0;
	}
	if (!strstr(buf, text))
		fail_msg("'%s' does not come, but '%s'", text, buf);
}

/* The other end is kept open by us, so that its settings can be looked at afterwards. */
static void terminal_once(enum way way)
{
	struct termios before, during, after;
	int master, slave, status;
	pid_t pid;

	assert_int_equal(openpty(&master, &slave, NULL, NULL, NULL), 0);
	assert_int_equal(tcgetattr(slave, &before), 0);
	pid = fork();
	if (!pid) {
		close(master);
		for (int sig = 1; sig < 32; sig++)
			signal(sig, SIG_DFL);	/* cmocka's and the sanitizer's handlers */
		login_tty(slave);
		child(way);
	}
	read_until(master, "Ctrl-A");
	tcgetattr(slave, &during);
	assert_true(!(during.c_lflag & (ECHO | ICANON | ISIG)));
	assert_int_equal(write(master, "a\001\001\001b!", 6), 6);
	read_until(master, "done");
	if (way == CLOSE)
		usleep(100000);
	if (way == CLOSE || way == TERM)
		kill(pid, way == CLOSE ? SIGKILL : SIGTERM);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status))
		fail_msg("child ended with %d, way %d", WEXITSTATUS(status), way);
	if (way >= TERM)
		assert_true(WIFSIGNALED(status));
	tcgetattr(slave, &after);
	assert_int_equal(after.c_lflag, before.c_lflag);
	assert_int_equal(after.c_iflag, before.c_iflag);
	assert_int_equal(after.c_oflag, before.c_oflag);
	close(master);
	close(slave);
}

static void test_terminal(void **state)
{
	for (enum way w = CLOSE; w <= ABRT; w++)
		terminal_once(w);
}

/* Pipes for both: no escape key, and the end of input is no more than that. */
static void test_stdio_pipes(void **state)
{
	struct skep_error e = { .text = "" };
	int in[2], out[2], saved0 = dup(0), saved1 = dup(1);
	struct sink *s;

	assert_int_equal(pipe(in), 0);
	assert_int_equal(pipe(out), 0);
	fflush(stdout);
	dup2(in[0], 0);
	dup2(out[1], 1);
	s = start("stdio", &e);
	dup2(saved0, 0);
	dup2(saved1, 1);
	assert_non_null(s->b);
	assert_int_equal(write(in[1], "x\001xy", 4), 4);
	close(in[1]);
	pump_until(s, 4);
	assert_memory_equal(s->data, "x\001xy", 4);
	settle(s);
	char_write(s->b, "after the end of input", 22);
	expect(s, out[0], "after the end of input");
	/* The reader goes: said once, then discarded. */
	close(out[0]);
	close(out[1]);
	dup2(open("/dev/null", O_WRONLY), 2);
	for (int i = 0; i < 3; i++) {
		char_write(s->b, "nobody", 6);
		settle(s);
	}
	assert_true(char_room(s->b) > 0);
	end(s);
	close(in[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_file),
		cmocka_unit_test(test_null),
		cmocka_unit_test(test_write_error),
		cmocka_unit_test(test_unix),
		cmocka_unit_test(test_keep),
		cmocka_unit_test(test_full_and_drained),
		cmocka_unit_test(test_pacing),
		cmocka_unit_test(test_tcp),
		cmocka_unit_test(test_pty),
		cmocka_unit_test(test_pty_gone_unread),
		cmocka_unit_test(test_terminal),
		cmocka_unit_test(test_stdio_pipes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
