/* Where `skep 9pserve` listens. */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "p9/socket.h"

static int listen_unix(const char *path, struct skep_error *e)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd, err;

	if (!*path || strlen(path) >= sizeof(sa.sun_path))
		return skep_fail(e, ENAMETOOLONG, "a socket's name has 1 to %zu bytes, '%s' has %zu",
				 sizeof(sa.sun_path) - 1, path, strlen(path));
	memcpy(sa.sun_path, path, strlen(path));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return skep_fail(e, errno, "cannot make a socket: %s", strerror(errno));
	/* The mode of the socket's inode limits that of its name. */
	if (fchmod(fd, 0600) < 0 || bind(fd, (const void *)&sa, sizeof(sa)) < 0 || listen(fd, 16) < 0) {
		err = errno;
		close(fd);
		return skep_fail(e, err, "cannot listen on '%s': %s%s", path, strerror(err),
				 err == EADDRINUSE ? "; remove it if nobody listens there any more" : "");
	}
	return fd;
}

static int listen_one(const struct addrinfo *a)
{
	int fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol), one = 1, err;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, 16) == 0)
		return fd;
	err = errno;
	close(fd);
	return -err;
}

static uint16_t port_of(int fd)
{
	struct sockaddr_storage sa = { 0 };
	socklen_t len = sizeof(sa);

	getsockname(fd, (void *)&sa, &len);
	return ntohs(sa.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&sa)->sin6_port :
		     ((struct sockaddr_in *)&sa)->sin_port);
}

/* host:port, [v6]:port */
static int listen_tcp(const char *where, uint16_t *port, struct skep_error *e)
{
	struct addrinfo hint = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE }, *list;
	const char *colon = strrchr(where, ':');
	char host[256];
	int fd = -EADDRNOTAVAIL, rc, len = colon ? (int)(colon - where) : 0;

	if (!colon || len >= (int)sizeof(host))
		return skep_fail(e, EINVAL, "want tcp:HOST:PORT, as in tcp:127.0.0.1:5640, and not \"tcp:%s\"",
				 where);
	if (len > 1 && where[0] == '[' && where[len - 1] == ']') {
		where++;
		len -= 2;
	}
	snprintf(host, sizeof(host), "%.*s", len, where);
	/* No address is not every address: it is what only this host reaches. */
	rc = getaddrinfo(*host ? host : "localhost", colon + 1, &hint, &list);
	if (rc)
		return skep_fail(e, EINVAL, "\"%s\": %s", where, gai_strerror(rc));
	for (struct addrinfo *a = list; a && fd < 0; a = a->ai_next)
		fd = listen_one(a);
	freeaddrinfo(list);
	if (fd < 0)
		return skep_fail(e, -fd, "cannot listen on %s: %s", where, strerror(-fd));
	*port = port_of(fd);
	return fd;
}

int p9_listen(const char *where, uint16_t *port, struct skep_error *e)
{
	*port = 0;
	if (!strncmp(where, "unix:", 5))
		return listen_unix(where + 5, e);
	if (!strncmp(where, "tcp:", 4))
		return listen_tcp(where + 4, port, e);
	return skep_fail(e, EINVAL, "want unix:PATH or tcp:HOST:PORT, and not \"%s\"", where);
}
