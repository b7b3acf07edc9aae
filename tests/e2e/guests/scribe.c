/*
 * scribe DEVICE [BLOCKS]: writes to a disk without end and remembers what it wrote, in memory only.
 * Every block that it reads must be what it wrote last, or, if it was never read or written, anything.
 * So a machine whose memory and disk are not of the same moment is found out at once.
 *
 * Prints "scribe: N" now and then, N being the number of requests so far, and "scribe: WRONG ..." and
 * ends if something is not as it was written.  Requests go past the guest's page cache (O_DIRECT), four at
 * a time by four processes with a part of the disk each.
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
#include <unistd.h>

#define BLOCK	4096
#define PARTS	4

static uint64_t rng;

static uint64_t rnd(uint64_t n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng % n;
}

static void fill(uint64_t *buf, uint64_t block, uint32_t version)
{
	unsigned i;

	for (i = 0; i < BLOCK / 8; i++)
		buf[i] = (block << 32 | version) * 0x9e3779b97f4a7c15ull + i;
}

static void wrong(const char *what, uint64_t block, uint32_t version)
{
	printf("scribe: WRONG %s of block %llu, version %u\n", what, (unsigned long long)block, version);
	fflush(stdout);
	_exit(1);
}

static void work(int fd, uint64_t first, uint64_t blocks, volatile uint64_t *count)
{
	uint32_t *version = calloc(blocks, sizeof(*version));
	uint64_t *buf, want[BLOCK / 8];

	if (!version || posix_memalign((void **)&buf, BLOCK, 16 * BLOCK))
		_exit(2);
	for (;;) {
		uint64_t at = rnd(blocks), n = 1 + rnd(rnd(4) ? 2 : 16), i;

		if (n > blocks - at)
			n = blocks - at;
		if (rnd(3)) {
			for (i = 0; i < n; i++)
				fill(buf + i * BLOCK / 8, first + at + i, ++version[at + i]);
			if (pwrite(fd, buf, n * BLOCK, (first + at) * BLOCK) != (ssize_t)(n * BLOCK))
				wrong("write", first + at, version[at]);
		} else {
			if (pread(fd, buf, n * BLOCK, (first + at) * BLOCK) != (ssize_t)(n * BLOCK))
				wrong("read", first + at, version[at]);
			for (i = 0; i < n; i++) {
				fill(want, first + at + i, version[at + i]);
				if (version[at + i] && memcmp(want, buf + i * BLOCK / 8, BLOCK))
					wrong("content", first + at + i, version[at + i]);
			}
		}
		if (!rnd(200) && fdatasync(fd))
			wrong("flush", 0, 0);
		++*count;
	}
}

int main(int argc, char **argv)
{
	uint64_t blocks, last = 0, sum;
	volatile uint64_t *count = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
					0);
	int fd = argc > 1 ? open(argv[1], O_RDWR | O_DIRECT) : -1, i, status;

	if (fd < 0 || count == MAP_FAILED) {
		perror("scribe");
		return 2;
	}
	blocks = argc > 2 ? strtoull(argv[2], NULL, 0) : (uint64_t)lseek(fd, 0, SEEK_END) / BLOCK;
	for (i = 0; i < PARTS; i++)
		if (!fork()) {
			rng = 88172645463325252ull + (uint64_t)i;
			work(fd, blocks / PARTS * (uint64_t)i, blocks / PARTS, &count[i]);
		}
	for (;;) {
		usleep(200000);
		if (waitpid(-1, &status, WNOHANG) > 0) {
			kill(0, 9);
			return 1;
		}
		for (sum = 0, i = 0; i < PARTS; i++)
			sum += count[i];
		if (sum != last)
			printf("scribe: %llu\n", (unsigned long long)sum);
		fflush(stdout);
		last = sum;
	}
}
