/*
 * replay_virtio DIRECTORY [CHANGES]: every file of the corpus through the fuzzer's function, and
 * CHANGES (200) random changes of each, the same ones every time.  Who dies leaves the input's name
 * and the number of the change on standard error.
 */
#include "fuzz_virtio.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROOM 4096u

static uint64_t next(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x >> 8;
}

/* Bytes changed, put in, cut out; more often near each other than not. */
static size_t change(uint8_t *data, size_t len, uint64_t *x)
{
	for (unsigned n = 1 + next(x) % 6; n; n--) {
		size_t at = len ? next(x) % len : 0, count = 1 + next(x) % 8;

		switch (next(x) % 4) {
		case 0:
			count = len + count <= ROOM ? count : 0;
			memmove(data + at + count, data + at, len - at);
			len += count;
			/* fall through */
		case 1:
			for (size_t i = 0; i < count && at + i < len; i++)
				data[at + i] = (uint8_t)next(x);
			break;
		case 2:
			count = count < len - at ? count : len - at;
			memmove(data + at, data + at + count, len - at - count);
			len -= count;
			break;
		default:
			if (len)
				data[at] ^= (uint8_t)(1u << next(x) % 8);
			break;
		}
	}
	return len;
}

static size_t load(const char *directory, const char *name, uint8_t *data)
{
	char path[4096];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, data, ROOM);
	if (fd >= 0)
		close(fd);
	if (n < 0) {
		perror(path);
		exit(2);
	}
	return (size_t)n;
}

int main(int argc, char **argv)
{
	unsigned long changes = argc > 2 ? strtoul(argv[2], NULL, 10) : 200, runs = 0;
	static uint8_t data[ROOM], copy[ROOM + 64];
	struct dirent **names;
	int n = argc > 1 ? scandir(argv[1], &names, NULL, alphasort) : -1;

	if (n < 0) {
		fprintf(stderr, "usage: replay_virtio DIRECTORY [CHANGES]\n");
		return 2;
	}
	for (int i = 0; i < n; i++) {
		uint64_t x = 88172645463325252ull + (unsigned)i;
		size_t len;

		if (names[i]->d_name[0] != '.') {
			len = load(argv[1], names[i]->d_name, data);
			LLVMFuzzerTestOneInput(data, len);
			for (unsigned long c = 0; c < changes; c++, runs++) {
				memcpy(copy, data, len);
				LLVMFuzzerTestOneInput(copy, change(copy, len, &x));
			}
		}
		free(names[i]);
	}
	free(names);
	printf("%lu inputs\n", runs);
	return 0;
}
