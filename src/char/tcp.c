/* A TCP socket on which we listen. */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"
#include "char/listen.h"

/* getaddrinfo takes 70000 for 4464. */
static bool valid_port(const char *s)
{
	size_t digits = strspn(s, "0123456789");

	return digits >= 1 && digits <= 5 && !s[digits] && atoi(s) >= 1 && atoi(s) <= 65535;
}

/* "127.0.0.1:5555" or "[::1]:5555" into two strings of at most 63 bytes. */
static int split(const char *arg, char host[64], char port[64])
{
	const char *colon = strrchr(arg, ':');
	size_t len;

	if (!colon || !valid_port(colon + 1))
		return -EINVAL;
	len = colon - arg;
	if (arg[0] == '[') {
		if (len < 2 || arg[len - 1] != ']')
			return -EINVAL;
		arg++;
		len -= 2;
	} else if (memchr(arg, ':', len)) {
		return -EINVAL;
	}
	if (!len || len > 63)
		return -EINVAL;
	memcpy(host, arg, len);
	host[len] = 0;
	memcpy(port, colon + 1, strlen(colon + 1) + 1);
	return 0;
}

/* Numbers only: no name service is asked, least of all inside the sandbox. */
static struct addrinfo *resolve(struct char_backend *b, const char *arg, struct skep_error *e)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
				  .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE };
	struct addrinfo *ai = NULL;
	char host[64], port[64];

	if (split(arg, host, port) < 0 || getaddrinfo(host, port, &hints, &ai) != 0 || !ai) {
		skep_fail(e, EINVAL, "%s.path: 'tcp=%s' is not tcp=address:port with numbers, "
			  "as in tcp=127.0.0.1:5555 or tcp=[::1]:5555", b->owner, arg);
		return NULL;
	}
	return ai;
}

static int tcp_open(struct char_backend *b, const char *arg, struct skep_error *e)
{
	struct listen_backend *l = container_of(b, struct listen_backend, base);
	struct addrinfo *ai;
	int fd, on = 1, err;

	l->fd = -1;
	ai = resolve(b, arg, e);
	if (!ai)
		return -EINVAL;
	fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    bind(fd, ai->ai_addr, ai->ai_addrlen) < 0) {
		err = errno;
		freeaddrinfo(ai);
		if (fd >= 0)
			close(fd);
		return skep_fail(e, err, "%s.path: cannot listen on 'tcp=%s': %s", b->owner, arg,
				 strerror(err));
	}
	freeaddrinfo(ai);
	return listen_start(l, fd, e);
}

const struct char_ops char_tcp = {
	.name = "tcp=",
	.help = "tcp=ip:port: a TCP socket to connect to; IPv6 as tcp=[::1]:port",
	.size = sizeof(struct listen_backend),
	.open = tcp_open,
	.filter = char_filter_none,
	.gone = listen_gone,
	.close = listen_close,
};
