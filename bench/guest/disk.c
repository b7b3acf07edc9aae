/*
 * disk DEVICE: what a guest gets of a disk, past its own page cache (O_DIRECT).  Prints, as rates of
 * the machine's own clock, "DISK seq_read BYTES/S", seq_write, rand_read (requests of 4 KiB a second, by
 * four processes) and rand_write.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHUNK	(512 * 1024)
#define SPACE	(128ull << 20)
#define SMALL	4096
#define WORKERS	4
#define SECONDS	4

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void sequential(int fd, char *buf, int write)
{
	double begin = now();
	uint64_t at;

	for (at = 0; at < SPACE; at += CHUNK)
		if ((write ? pwrite(fd, buf, CHUNK, at) : pread(fd, buf, CHUNK, at)) != CHUNK)
			die("sequential");
	if (write && fdatasync(fd))
		die("fdatasync");
	printf("DISK seq_%s %.0f\n", write ? "write" : "read", SPACE / (now() - begin));
}

static void scattered(int fd, char *buf, int write)
{
	uint64_t *count = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint64_t sum = 0, r;
	double begin = now();
	int i;

	for (i = 0; i < WORKERS; i++) {
		if (fork())
			continue;
		for (r = 88172645463325252ull + i; now() < begin + SECONDS; count[i]++) {
			uint64_t at;

			r ^= r << 13;
			r ^= r >> 7;
			r ^= r << 17;
			at = r % (SPACE / SMALL) * SMALL;
			if ((write ? pwrite(fd, buf, SMALL, at) : pread(fd, buf, SMALL, at)) != SMALL)
				die("scattered");
		}
		_exit(0);
	}
	while (wait(NULL) > 0)
		;
	for (i = 0; i < WORKERS; i++)
		sum += count[i];
	printf("DISK rand_%s %.0f\n", write ? "write" : "read", sum / (now() - begin));
}

int main(int argc, char **argv)
{
	int fd = argc > 1 ? open(argv[1], O_RDWR | O_DIRECT) : -1;
	char *buf = mmap(NULL, CHUNK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1,
			 0);

	if (fd < 0)
		die("disk");
	setvbuf(stdout, NULL, _IONBF, 0);
	memset(buf, 0x5a, CHUNK);
	sequential(fd, buf, 1);
	sequential(fd, buf, 0);
	scattered(fd, buf, 0);
	scattered(fd, buf, 1);
	return 0;
}
