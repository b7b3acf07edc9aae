/* See client.h. */
#include "client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void die(const char *what)
{
	fprintf(stderr, "9P client: %s\n", what);
	abort();
}

void client_connect(struct client *c, int fd)
{
	memset(c, 0, sizeof(*c));
	c->fd = fd;
	c->out = malloc(CLIENT_ROOM);
	c->in = malloc(CLIENT_ROOM);
	if (!c->out || !c->in)
		die("no memory");
}

static void attach_to(struct client *c, struct p9_server *s)
{
	struct skep_error e = { "" };
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		die("socketpair");
	client_connect(c, pair[0]);
	c->connection = p9_connection_start(s, 1024 * 1024, pair[1], &e);
	if (!c->connection)
		die(e.text);
}

void client_start(struct client *c, const char *path, const char *options)
{
	struct skep_error e = { "" };
	struct p9_options o;
	struct p9_server *s;
	char *text = strdup(options), *save = NULL, *word, *value;

	p9_options_init(&o);
	o.path = path;
	for (word = strtok_r(text, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
		value = strchr(word, '=');
		if (value)
			*value++ = '\0';
		if (p9_option_set(&o, word, value, &e))
			die(e.text);
	}
	free(text);
	s = p9_server_create(&o, "test", &e);
	if (!s)
		die(e.text);
	attach_to(c, s);
	c->server = s;
}

void client_join(struct client *c, struct client *other)
{
	attach_to(c, other->server);
}

void client_stop(struct client *c)
{
	close(c->fd);
	if (c->connection)
		p9_connection_end(c->connection);
	p9_server_destroy(c->server);
	free(c->out);
	free(c->in);
}

void client_raw(struct client *c, const void *bytes, size_t n)
{
	if (send(c->fd, bytes, n, MSG_NOSIGNAL) != (ssize_t)n)
		die("send");
}

void client_vsend(struct client *c, uint8_t type, uint16_t tag, const char *what, va_list ap)
{
	struct p9_out o = { c->out, 0, CLIENT_ROOM, false };
	const char *s;
	const void *x;

	p9_put32(&o, 0);
	p9_put8(&o, type);
	p9_put16(&o, tag);
	for (; *what; what++) {
		switch (*what) {
		case 'b': p9_put8(&o, (uint8_t)va_arg(ap, int)); break;
		case 'w': p9_put16(&o, (uint16_t)va_arg(ap, int)); break;
		case 'd': p9_put32(&o, va_arg(ap, uint32_t)); break;
		case 'q': p9_put64(&o, va_arg(ap, uint64_t)); break;
		case 's': s = va_arg(ap, const char *); p9_put_text(&o, s, strlen(s)); break;
		case 'x': x = va_arg(ap, const void *); p9_put_bytes(&o, x, va_arg(ap, size_t)); break;
		default: die("format");
		}
	}
	if (o.full)
		die("message too large");
	store32(c->out, (uint32_t)o.len);
	client_raw(c, c->out, o.len);
}

void client_send(struct client *c, uint8_t type, uint16_t tag, const char *what, ...)
{
	va_list ap;

	va_start(ap, what);
	client_vsend(c, type, tag, what, ap);
	va_end(ap);
}

static bool get(struct client *c, void *buf, size_t n)
{
	while (n) {
		ssize_t got = recv(c->fd, buf, n, 0);

		if (got <= 0)
			return false;
		buf = (uint8_t *)buf + got;
		n -= (size_t)got;
	}
	return true;
}

bool client_receive(struct client *c)
{
	uint32_t size;

	if (!get(c, c->in, P9_HEAD))
		return false;
	size = load32(c->in);
	if (size < P9_HEAD || size > CLIENT_ROOM)
		die("size of an answer");
	if (!get(c, c->in + P9_HEAD, size - P9_HEAD))
		die("cut short");
	c->type = c->in[4];
	c->tag = load16(c->in + 5);
	c->body = (struct p9_in){ c->in + P9_HEAD, size - P9_HEAD, false };
	return true;
}

static int result(struct client *c, uint8_t type)
{
	if (!client_receive(c))
		die("the server has closed");
	if (c->type == P9_RLERROR) {
		if (c->body.left != 4)
			die("form of an Rlerror");
		return -(int)p9_get32(&c->body);
	}
	if (c->type != type + 1)
		die("another answer");
	return 0;
}

int client_call(struct client *c, uint8_t type, const char *what, ...)
{
	va_list ap;

	va_start(ap, what);
	client_vsend(c, type, type == P9_TVERSION ? P9_NOTAG : 1, what, ap);
	va_end(ap);
	return result(c, type);
}

int client_version(struct client *c, uint32_t msize)
{
	return client_call(c, P9_TVERSION, "ds", msize, P9_VERSION);
}

int client_attach(struct client *c, uint32_t fid, uint32_t uid)
{
	int err = client_version(c, 1024 * 1024);

	return err ? err : client_call(c, P9_TATTACH, "ddssd", fid, P9_NOFID, "test", "", uid);
}

/* -ENOENT: it did not come to the end. */
int client_walk(struct client *c, uint32_t fid, uint32_t newfid, const char *path)
{
	uint8_t names[4096];
	struct p9_out o = { names, 0, sizeof(names), false };
	uint16_t n = 0;
	int err;

	while (*path) {
		size_t len = strcspn(path, "/");

		if (len) {
			p9_put_text(&o, path, len);
			n++;
		}
		path += len + (path[len] == '/');
	}
	err = client_call(c, P9_TWALK, "ddwx", fid, newfid, n, names, o.len);
	if (!err && p9_get16(&c->body) != n)
		return -ENOENT;
	return err;
}

int client_clunk(struct client *c, uint32_t fid)
{
	return client_call(c, P9_TCLUNK, "d", fid);
}

int client_open(struct client *c, uint32_t fid, uint32_t flags)
{
	return client_call(c, P9_TLOPEN, "dd", fid, flags);
}

int client_create(struct client *c, uint32_t fid, const char *name, uint32_t flags, uint32_t mode)
{
	return client_call(c, P9_TLCREATE, "dsddd", fid, name, flags, mode, 0u);
}

static void get_qid(struct p9_in *in, struct p9_qid *q)
{
	q->type = p9_get8(in);
	q->version = p9_get32(in);
	q->path = p9_get64(in);
}

int client_getattr(struct client *c, uint32_t fid, struct client_attr *a)
{
	int err = client_call(c, P9_TGETATTR, "dq", fid, P9_GET_BASIC);
	struct p9_in *in = &c->body;

	if (err)
		return err;
	p9_get64(in);
	get_qid(in, &a->qid);
	a->mode = p9_get32(in);
	a->uid = p9_get32(in);
	a->gid = p9_get32(in);
	a->nlink = p9_get64(in);
	a->rdev = p9_get64(in);
	a->size = p9_get64(in);
	p9_get64(in);
	a->blocks = p9_get64(in);
	a->atime = (int64_t)p9_get64(in);
	p9_get64(in);
	a->mtime = (int64_t)p9_get64(in);
	p9_get64(in);
	a->ctime = (int64_t)p9_get64(in);
	if (in->bad)
		die("form of an Rgetattr");
	return 0;
}

int client_setattr(struct client *c, uint32_t fid, uint32_t valid, uint32_t mode, uint32_t uid,
		   uint32_t gid, uint64_t size)
{
	return client_call(c, P9_TSETATTR, "dddddqqqqq", fid, valid, mode, uid, gid, size,
			   (uint64_t)1111, (uint64_t)5, (uint64_t)2222, (uint64_t)6);
}

int client_read(struct client *c, uint32_t fid, uint64_t offset, void *buf, uint32_t n)
{
	int err = client_call(c, P9_TREAD, "dqd", fid, offset, n);
	uint32_t got;

	if (err)
		return err;
	got = p9_get32(&c->body);
	if (got > n || got != c->body.left)
		die("form of an Rread");
	memcpy(buf, c->body.p, got);
	return (int)got;
}

int client_write(struct client *c, uint32_t fid, uint64_t offset, const void *buf, uint32_t n)
{
	int err = client_call(c, P9_TWRITE, "dqdx", fid, offset, n, buf, (size_t)n);

	return err ? err : (int)p9_get32(&c->body);
}
