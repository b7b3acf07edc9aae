/* skep 9pserve: a directory for 9P clients on a socket, without a machine. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "cli/cli.h"
#include "p9/socket.h"

#define CLIENTS_MAX	64

static const char usage[] =
	"usage: skep 9pserve DIR [--listen unix:PATH|tcp:HOST:PORT] [OPTION[=VALUE] ...]\n"
	"\n"
	"Serves DIR to 9P2000.L clients, until SIGTERM or SIGINT.  Where it listens stands on\n"
	"standard output (tcp:127.0.0.1:5640 if nothing is said).\n"
	"\n"
	"  ro                       nothing is changed\n"
	"  security=mapped-xattr    owners and modes live in an extended attribute (default);\n"
	"           passthrough     they are the host's own, which wants capabilities;\n"
	"           none            as far as the server may\n"
	"  map=HOST:GUEST:COUNT     ids of both sides, several with + between them\n"
	"  squash=UID:GID           all belongs to them\n"
	"  multidevs=remap|forbid|warn    file systems mounted below DIR\n"
	"  cache=auto|none          may clients keep contents?\n"
	"  msize=BYTES fids=N files=N workers=N    limits\n"
	"\n"
	"A Linux client: mount -t 9p -o trans=tcp,port=5640,version=9p2000.L,msize=1048576 \\\n"
	"                      127.0.0.1 /mnt\n";

struct serve {
	struct p9_options o;
	const char *where;
	struct p9_server *server;
	struct p9_connection *client[CLIENTS_MAX];
	int listen_fd, signal_fd;
};

static int set_option(struct serve *s, char *arg, struct skep_error *e)
{
	char *value = strchr(arg, '=');

	if (value)
		*value++ = '\0';
	return p9_option_set(&s->o, arg, value, e);
}

static int parse(struct serve *s, int argc, char **argv, struct skep_error *e)
{
	int err = 0;

	for (int i = 1; i < argc && !err; i++) {
		if (!strcmp(argv[i], "--listen")) {
			if (++i == argc)
				return skep_fail(e, EINVAL, "--listen needs an argument: unix:PATH or "
						 "tcp:HOST:PORT");
			s->where = argv[i];
		} else if (!strncmp(argv[i], "--listen=", 9)) {
			s->where = argv[i] + 9;
		} else if (!s->o.path) {
			s->o.path = argv[i];
		} else {
			err = set_option(s, argv[i], e);
		}
	}
	if (!err && !s->o.path)
		return skep_fail(e, EINVAL, "which directory? `skep 9pserve --help` explains");
	return err;
}

/* Forgets those who have gone; a slot that is free, or -1. */
static int sweep(struct serve *s)
{
	int free_slot = -1;

	for (int i = 0; i < CLIENTS_MAX; i++) {
		if (s->client[i] && p9_connection_over(s->client[i])) {
			p9_connection_end(s->client[i]);
			s->client[i] = NULL;
		}
		if (!s->client[i])
			free_slot = i;
	}
	return free_slot;
}

static void take_client(struct serve *s)
{
	int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC), slot = sweep(s);
	struct skep_error e = { "" };

	if (fd < 0)
		return;
	if (slot < 0) {
		cli_complain("%d clients are connected already; one more was refused", CLIENTS_MAX);
		close(fd);
		return;
	}
	s->client[slot] = p9_connection_start(s->server, s->o.msize, fd, &e);
	if (!s->client[slot])
		cli_complain("%s", e.text);
}

static void loop(struct serve *s)
{
	struct pollfd p[2] = { { s->listen_fd, POLLIN, 0 }, { s->signal_fd, POLLIN, 0 } };

	while (!(p[1].revents & POLLIN)) {
		if (poll(p, 2, 1000) < 0 && errno != EINTR)
			break;
		if (p[0].revents & POLLIN)
			take_client(s);
		else
			sweep(s);
	}
	for (int i = 0; i < CLIENTS_MAX; i++)
		if (s->client[i])
			p9_connection_end(s->client[i]);
}

static int serve(struct serve *s, struct skep_error *e)
{
	sigset_t set;
	uint16_t port;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
	s->server = p9_server_create(&s->o, "9pserve", e);
	if (!s->server)
		return -1;
	s->listen_fd = p9_listen(s->where, &port, e);
	if (s->listen_fd < 0) {
		p9_server_destroy(s->server);
		return -1;
	}
	if (port)
		printf("%.*s:%u\n", (int)(strrchr(s->where, ':') - s->where), s->where, port);
	else
		puts(s->where);
	fflush(stdout);
	loop(s);
	close(s->listen_fd);
	if (!strncmp(s->where, "unix:", 5))
		unlink(s->where + 5);
	p9_server_destroy(s->server);
	return 0;
}

int cli_9pserve(int argc, char **argv, const struct cli_start *start)
{
	struct serve s = { .where = "tcp:127.0.0.1:5640" };
	struct skep_error e = { "" };

	if (argc == 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
		fputs(usage, stdout);
		return 0;
	}
	p9_options_init(&s.o);
	if (parse(&s, argc, argv, &e) || serve(&s, &e)) {
		cli_complain("%s", e.text);
		return CLI_ERROR;
	}
	return 0;
}
