/*
 * replay DIRECTORY: every file of the corpus through the fuzzer's function, and a few changes of
 * each through its mutator, without libFuzzer.
 */
#include "hostile.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ROOM	(1u << 20)
#define CHANGES	20

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerInitialize(int *argc, char ***argv);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t len, size_t max, unsigned seed);

extern unsigned long fuzz_accepted;
static const char *current;

static void failed(void)
{
	fprintf(stderr, "replay: %s\n", current);
}

static size_t load(int directory, const char *name, uint8_t *data)
{
	int fd = openat(directory, name, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, data, ROOM);

	if (n < 0) {
		fprintf(stderr, "replay: %s: %s\n", name, strerror(errno));
		exit(2);
	}
	close(fd);
	return (size_t)n;
}

int main(int argc, char **argv)
{
	struct dirent **names;
	uint8_t *data = malloc(ROOM), *copy = malloc(ROOM);
	int n = argc == 2 ? scandir(argv[1], &names, NULL, alphasort) : -1, i, files = 0;
	int directory = n < 0 ? -1 : open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (directory < 0 || !data || !copy) {
		fprintf(stderr, "usage: replay DIRECTORY\n");
		return 2;
	}
	hostile_failed = failed;
	LLVMFuzzerInitialize(&argc, &argv);
	for (i = 0; i < n; i++) {
		size_t len;

		current = names[i]->d_name;
		if (current[0] == '.')
			continue;
		len = load(directory, current, data);
		LLVMFuzzerTestOneInput(data, len);
		for (unsigned k = 0; k < CHANGES; k++) {
			memcpy(copy, data, len);
			LLVMFuzzerTestOneInput(copy, LLVMFuzzerCustomMutator(copy, len, ROOM, k));
		}
		files++;
	}
	for (i = 0; i < n; i++)
		free(names[i]);
	free(names);
	free(copy);
	free(data);
	printf("%d files, %d inputs, %lu accepted\n", files, files * (1 + CHANGES), fuzz_accepted);
	i = files && hostile_end() ? 0 : 1;
	close(directory);
	return i;
}
