/*
 * replay_p9 DIRECTORY [CHANGES [SEED]]: every file of the corpus through the 9P fuzzer's function, and
 * some changes of each, without libFuzzer.
 */
#include "fuzz_p9.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROOM 65536

static uint64_t state;

static uint32_t any(uint32_t below)
{
	state = state * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(state >> 33) % below;
}

static size_t change(uint8_t *p, size_t len)
{
	static const uint8_t edge[] = { 0, 1, 2, 0x2f, 0x2e, 0x7f, 0x80, 0xff };

	for (unsigned n = 1 + any(4); n && len; n--) {
		size_t at = any((uint32_t)len);

		switch (any(5)) {
		case 0: p[at] ^= (uint8_t)(1 << any(8)); break;
		case 1: p[at] = edge[any(sizeof(edge))]; break;
		case 2: memset(p + at, edge[any(sizeof(edge))], len - at < 4 ? len - at : 4); break;
		case 3: len = at; break;
		default:	/* a piece comes twice */
			if (len * 2 < ROOM) {
				size_t n2 = len - at;

				memmove(p + len, p + at, n2);
				len += n2;
			}
		}
	}
	return len;
}

int main(int argc, char **argv)
{
	unsigned changes = argc > 2 ? (unsigned)atoi(argv[2]) : 20, files = 0;
	static uint8_t data[ROOM], copy[ROOM];
	struct dirent **names;
	int n = argc > 1 ? scandir(argv[1], &names, NULL, alphasort) : -1;

	state = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
	if (n < 0) {
		fprintf(stderr, "usage: replay_p9 DIRECTORY [CHANGES [SEED]]\n");
		return 2;
	}
	LLVMFuzzerInitialize(&argc, &argv);
	for (int i = 0; i < n; free(names[i++])) {
		char path[512];
		ssize_t len;
		int fd;

		if (names[i]->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", argv[1], names[i]->d_name);
		fd = open(path, O_RDONLY);
		len = fd < 0 ? -1 : read(fd, data, ROOM / 2);
		if (len < 0) {
			perror(path);
			return 2;
		}
		close(fd);
		LLVMFuzzerTestOneInput(data, (size_t)len);
		for (unsigned k = 0; k < changes; k++) {
			memcpy(copy, data, (size_t)len);
			LLVMFuzzerTestOneInput(copy, change(copy, (size_t)len));
		}
		files++;
	}
	free(names);
	printf("%u files, %u inputs, %lu answers, %lu of them good\n", files, files * (1 + changes), fuzz_answers,
	       fuzz_successes);
	return files ? 0 : 1;
}
