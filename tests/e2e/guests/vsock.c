/*
 * vsock echo PORT: answers each connection with what it says, one after the other, for ever.
 * vsock call CID PORT: standard input goes there; what comes back goes to standard output.
 * Says how it ended on standard error.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/vm_sockets.h>

static int copy(int from, int to)
{
	char buf[65536];
	ssize_t n;

	while ((n = read(from, buf, sizeof(buf))) > 0)
		for (ssize_t at = 0, m; at < n; at += m)
			if ((m = write(to, buf + at, n - at)) < 0)
				return -errno;
	return n < 0 ? -errno : 0;
}

static int echo(struct sockaddr_vm *a)
{
	int s = socket(AF_VSOCK, SOCK_STREAM, 0);

	if (s < 0 || bind(s, (struct sockaddr *)a, sizeof(*a)) < 0 || listen(s, 8) < 0)
		return -errno;
	fprintf(stderr, "vsock: listens\n");
	for (;;) {
		int c = accept(s, NULL, NULL), err = c < 0 ? -errno : copy(c, c);

		fprintf(stderr, "vsock: connection ended: %s\n", err ? strerror(-err) : "whole");
		close(c);
	}
}

static int call(struct sockaddr_vm *a)
{
	int s = socket(AF_VSOCK, SOCK_STREAM, 0), err;

	if (s < 0 || connect(s, (struct sockaddr *)a, sizeof(*a)) < 0)
		return -errno;
	fprintf(stderr, "vsock: connected\n");
	err = copy(0, s);
	shutdown(s, SHUT_WR);
	return err ? err : copy(s, 1);
}

int main(int argc, char **argv)
{
	struct sockaddr_vm a = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY };
	int err = -EINVAL;

	if (argc == 3 && !strcmp(argv[1], "echo")) {
		a.svm_port = atoi(argv[2]);
		err = echo(&a);
	} else if (argc == 4 && !strcmp(argv[1], "call")) {
		a.svm_cid = atoi(argv[2]);
		a.svm_port = atoi(argv[3]);
		err = call(&a);
	}
	fprintf(stderr, "vsock: ended: %s\n", err ? strerror(-err) : "whole");
	return !!err;
}
