#include "control/client.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"
#include "config/nearest.h"
#include "control/internal.h"

#define GREETING_MS	5000
#define REPLY_MAX	(4 * 1024 * 1024)	/* a machine that says more in a line is none of ours */

struct control_client {
	int fd;
	int process;		/* pidfd of the machine's, or -1 */
	long pid;		/* 0: unknown */
	unsigned timeout;	/* ms; 0: none */
	char name[64];
	char *in;
	size_t in_len, in_cap;
};

/* ---- Who runs ------------------------------------------------------------ */

/* A socket that listens; negative errno. */
static int connect_to(int dir, const char *path, const char *name, struct skep_error *e)
{
	const struct timeval limit = { .tv_sec = GREETING_MS / 1000 };
	struct sockaddr_un sa;
	int err = control_address(dir, path, name, &sa, e), fd;

	if (err)
		return err;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return skep_fail(e, errno, "no socket: %s", strerror(errno));
	/* A machine that is stopped lets its queue run full. */
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (connect(fd, (const struct sockaddr *)&sa, sizeof(sa)) < 0) {
		err = errno;
		close(fd);
		return skep_fail(e, err, "the machine \"%s\": %s", name, err == EAGAIN ?
				 "it does not answer" : strerror(err));
	}
	return fd;
}

static bool listens(int dir, const char *path, const char *name)
{
	struct skep_error ignored = { "" };
	struct sockaddr_un sa;
	bool yes;
	int fd;

	if (control_address(dir, path, name, &sa, &ignored))
		return false;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return false;
	/* EAGAIN: its queue is full, but it is there. */
	yes = connect(fd, (const struct sockaddr *)&sa, sizeof(sa)) == 0 || errno == EAGAIN;
	close(fd);
	return yes;
}

/* "NAME.sock" to NAME; false: another file. */
static bool socket_name(const char *file, char name[64])
{
	size_t len = strlen(file);

	if (len < 6 || len - 5 > 63 || *file == '.' || strcmp(file + len - 5, ".sock"))
		return false;
	snprintf(name, 64, "%.*s", (int)(len - 5), file);
	return true;
}

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool add_name(char ***names, size_t *n, const char *name)
{
	char **p = realloc(*names, (*n + 2) * sizeof(*p));

	if (!p)
		return false;
	*names = p;
	p[*n] = strdup(name);
	if (!p[*n])
		return false;
	p[++*n] = NULL;
	return true;
}

static char **scan(int dir, const char *path)
{
	char **names = calloc(1, sizeof(*names)), name[64];
	size_t n = 0;
	bool good = names != NULL;
	struct dirent *d;
	DIR *s;
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	s = fd < 0 ? NULL : fdopendir(fd);
	if (!s && fd >= 0)
		close(fd);
	while (good && s && (d = readdir(s)))
		if (socket_name(d->d_name, name) && listens(dir, path, name))
			good = add_name(&names, &n, name);
	if (s)
		closedir(s);
	if (!good) {
		control_free_names(names);
		return NULL;
	}
	qsort(names, n, sizeof(*names), compare);
	return names;
}

char **control_names(struct skep_error *e)
{
	char path[PATH_MAX], **names;
	int dir = control_open_directory(false, path, e);

	if (dir == -ENOENT) {
		e->text[0] = '\0';
		names = calloc(1, sizeof(*names));
	} else if (dir < 0) {
		return NULL;
	} else {
		names = scan(dir, path);
		close(dir);
	}
	if (!names)
		skep_fail(e, ENOMEM, "no memory for the list of machines");
	return names;
}

void control_free_names(char **names)
{
	for (char **p = names; p && *p; p++)
		free(*p);
	free(names);
}

/* Nobody of that name listens: say who does. */
static int fail_unknown(const char *name, struct skep_error *e)
{
	struct skep_error why = { "" };
	char **names = control_names(&why), list[256] = "", hint[160];
	struct nearest near;
	size_t len = 0;

	if (!names)
		return skep_fail(e, ENOENT, "no machine named \"%s\" runs: %s", name, why.text);
	nearest_init(&near, name);
	for (char **p = names; *p; p++) {
		nearest_offer(&near, *p);
		if (len < sizeof(list) - 80)
			len += snprintf(list + len, sizeof(list) - len, "%s%s", len ? ", " : "", *p);
		else if (list[len - 1] != '.')
			len += snprintf(list + len, sizeof(list) - len, ", ...");
	}
	control_free_names(names);
	return skep_fail(e, ENOENT, "no machine named \"%s\" runs%s%s%s%s", name,
			 nearest_hint(&near, hint, sizeof(hint)), len ? " (running: " :
			 "; none of yours does", list, len ? ")" : "");
}

/* ---- Lines ---------------------------------------------------------------- */

static int fail_gone(struct control_client *c, int err, struct skep_error *e)
{
	return skep_fail(e, err, "the machine \"%s\" has ended the connection%s%s", c->name,
			 err == ECONNRESET ? "" : ": ", err == ECONNRESET ? "" : strerror(err));
}

static int fail_silent(struct control_client *c, struct skep_error *e)
{
	char pid[40] = "";

	if (c->pid)
		snprintf(pid, sizeof(pid), " (pid %ld)", c->pid);
	return skep_fail(e, ETIMEDOUT, "the machine \"%s\"%s does not answer", c->name, pid);
}

/* Reads more; until: host monotonic ns, 0: for ever.  A negative errno without a sentence. */
static int fill(struct control_client *c, int64_t until)
{
	struct pollfd p = { .fd = c->fd, .events = POLLIN };
	int64_t left = until ? until - control_now() : 0;
	ssize_t k;

	if (c->in_cap - c->in_len < 4096) {
		char *in = c->in_cap >= REPLY_MAX ? NULL : realloc(c->in, c->in_cap * 2 + 8192);

		if (!in)
			return -ENOMEM;
		c->in = in;
		c->in_cap = c->in_cap * 2 + 8192;
	}
	k = poll(&p, 1, !until ? -1 : left <= 0 ? 0 : (int)(left / 1000000) + 1);
	if (k == 0)
		return -ETIMEDOUT;
	if (k > 0)
		k = recv(c->fd, c->in + c->in_len, c->in_cap - c->in_len, MSG_DONTWAIT);
	if (k == 0)
		return -ECONNRESET;
	if (k > 0)
		c->in_len += k;
	return k > 0 || errno == EINTR || errno == EAGAIN ? 0 : -errno;
}

/* The next line that is there already; false: none. *line NULL: it is not JSON, or no memory. */
static bool take_line(struct control_client *c, json_t **line)
{
	char *nl = c->in_len ? memchr(c->in, '\n', c->in_len) : NULL;
	json_error_t je;

	if (!nl)
		return false;
	*line = json_loadb(c->in, nl - c->in, 0, &je);
	c->in_len -= nl + 1 - c->in;
	memmove(c->in, nl + 1, c->in_len);
	return true;
}

static json_t *read_line(struct control_client *c, int64_t until, struct skep_error *e)
{
	json_t *line;
	int err;

	while (!take_line(c, &line)) {
		err = fill(c, until);
		if (err == -ETIMEDOUT)
			fail_silent(c, e);
		else if (err)
			fail_gone(c, -err, e);
		if (err)
			return NULL;
	}
	if (!json_is_object(line)) {
		json_decref(line);
		skep_fail(e, EPROTO, "what the machine \"%s\" says is no line of JSON, or there is no "
			  "memory to read it", c->name);
		return NULL;
	}
	return line;
}

/* The sentence of an error line. */
static void take_error(struct control_client *c, json_t *line, struct skep_error *e)
{
	const char *text = json_string_value(json_object_get(json_object_get(line, "error"), "text"));

	skep_fail(e, EIO, "%s", text ? text : "the machine refuses and does not say why");
}

/* ---- Connecting ------------------------------------------------------------- */

static int greet(struct control_client *c, struct skep_error *e)
{
	json_t *line = read_line(c, control_now() + GREETING_MS * 1000000ll, e), *greeting;
	json_int_t protocol;
	int err = 0;

	if (!line)
		return -EIO;
	greeting = json_object_get(line, "skep");
	protocol = json_integer_value(json_object_get(greeting, "protocol"));
	if (json_object_get(line, "error")) {
		take_error(c, line, e);
		err = -EBUSY;
	} else if (protocol != CONTROL_PROTOCOL) {
		err = skep_fail(e, EPROTO, "the machine \"%s\" speaks version %lld of the control "
				"protocol and this command version %d; use the skep that started it",
				c->name, (long long)protocol, CONTROL_PROTOCOL);
	}
	json_decref(line);
	return err;
}

/* Who made the socket listen: the machine's process. */
static void find_process(struct control_client *c)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) || peer.pid <= 0)
		return;
	c->pid = peer.pid;
	c->process = (int)syscall(SYS_pidfd_open, peer.pid, 0);
}

static int open_socket(const char *name, struct skep_error *e)
{
	char path[PATH_MAX];
	int dir, fd;

	fd = control_check_name(name, e);
	if (fd)
		return fd;
	dir = control_open_directory(false, path, e);
	if (dir == -ENOENT)
		return fail_unknown(name, e);
	if (dir < 0)
		return dir;
	fd = connect_to(dir, path, name, e);
	close(dir);
	return fd == -ENOENT || fd == -ECONNREFUSED ? fail_unknown(name, e) : fd;
}

struct control_client *control_connect(const char *name, struct skep_error *e)
{
	struct control_client *c = calloc(1, sizeof(*c));

	if (!c) {
		skep_fail(e, ENOMEM, "no memory for a connection");
		return NULL;
	}
	c->process = -1;
	snprintf(c->name, sizeof(c->name), "%s", name);
	c->fd = open_socket(name, e);
	if (c->fd >= 0) {
		find_process(c);
		if (greet(c, e) == 0)
			return c;
	}
	control_close(c);
	return NULL;
}

void control_close(struct control_client *c)
{
	if (!c)
		return;
	if (c->fd >= 0)
		close(c->fd);
	if (c->process >= 0)
		close(c->process);
	free(c->in);
	free(c);
}

void control_set_timeout(struct control_client *c, unsigned ms)
{
	c->timeout = ms;
}

/* ---- Requests ---------------------------------------------------------------- */

static ssize_t send_some(int fd, const char *text, size_t len, int passed)
{
	union {
		char space[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { (void *)text, len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *m;

	if (passed >= 0) {
		msg.msg_control = control.space;
		msg.msg_controllen = sizeof(control.space);
		m = CMSG_FIRSTHDR(&msg);
		m->cmsg_level = SOL_SOCKET;
		m->cmsg_type = SCM_RIGHTS;
		m->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(m), &passed, sizeof(passed));
	}
	return sendmsg(fd, &msg, MSG_NOSIGNAL);
}

static int send_line(struct control_client *c, json_t *request, int passed, struct skep_error *e)
{
	char *text = json_dumps(request, JSON_COMPACT);
	size_t len = text ? strlen(text) : 0, at = 0;
	int err = 0;

	if (!text)
		return skep_fail(e, ENOMEM, "no memory for the request");
	if (len >= CONTROL_LINE_MAX)
		err = skep_fail(e, EMSGSIZE, "the request is longer than %d bytes", CONTROL_LINE_MAX);
	text[len++] = '\n';	/* in the place of the final zero */
	while (!err && at < len) {
		ssize_t k = send_some(c->fd, text + at, len - at, passed);

		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			err = errno == EAGAIN ? fail_silent(c, e) : fail_gone(c, errno, e);
		at += k;
		passed = -1;	/* once, with the first byte */
	}
	free(text);
	return err;
}

/* Not a reply. */
static void hand_event(json_t *line, void (*event)(void *, json_t *), void *opaque)
{
	if (event && json_object_get(line, "event"))
		event(opaque, line);
	json_decref(line);
}

json_t *control_call(struct control_client *c, const char *command, json_t *arguments, int fd,
		     void (*event)(void *opaque, json_t *event), void *opaque, struct skep_error *e)
{
	json_t *request = json_pack("{s:s}", "execute", command), *line, *value;
	int64_t until = c->timeout ? control_now() + c->timeout * 1000000ll : 0;
	int err;

	/* Without its arguments it would be another request. */
	if (!request || (arguments && json_object_set(request, "arguments", arguments) < 0))
		err = skep_fail(e, ENOMEM, "no memory for the request");
	else
		err = send_line(c, request, fd, e);
	json_decref(request);
	if (err)
		return NULL;
	while ((line = read_line(c, until, e))) {
		value = json_object_get(line, "return");
		if (value || json_object_get(line, "error"))
			break;
		hand_event(line, event, opaque);
	}
	if (!line)
		return NULL;
	if (!value)
		take_error(c, line, e);
	json_incref(value);
	json_decref(line);
	return value;
}

/* Waits for the process once the socket says nothing more. */
static int wait_process(struct control_client *c, int64_t until, struct skep_error *e)
{
	struct pollfd p = { .fd = c->process, .events = POLLIN };
	int64_t left = until ? until - control_now() : 0;
	int k;

	if (c->process < 0)
		return 0;
	do
		k = poll(&p, 1, !until ? -1 : left <= 0 ? 0 : (int)(left / 1000000) + 1);
	while (k < 0 && errno == EINTR);
	if (k > 0)
		return 0;
	return skep_fail(e, ETIMEDOUT, "the machine \"%s\" (pid %ld) has not ended yet", c->name, c->pid);
}

int control_wait(struct control_client *c, int ms, void (*event)(void *opaque, json_t *event),
		 void *opaque, struct skep_error *e)
{
	int64_t until = ms < 0 ? 0 : control_now() + ms * 1000000ll;
	json_t *line;
	int err = 0;

	while (!err) {
		if (take_line(c, &line))
			hand_event(line, event, opaque);
		else
			err = fill(c, until);
	}
	if (err == -ETIMEDOUT)
		return skep_fail(e, ETIMEDOUT, "the machine \"%s\" (pid %ld) has not ended yet", c->name,
				 c->pid);
	return wait_process(c, until, e);
}
