/*
 * snap_write FILE CPUS LEVEL: a snapshot of a machine that never was, of so many processors, for
 * tests/e2e/snapfile.py.  Register k of processor n (from 1) is 0x1000 n + k.
 */
#include "snap_helper.h"

int main(int argc, char **argv)
{
	struct test_ram ram;
	struct shot s = { .ram = &ram, .records = 0 };

	if (argc != 4)
		return 2;
	s.cpus = atoi(argv[2]);
	s.zstd_level = atoi(argv[3]);
	ram_init(&ram, 5 * MiB, 0);
	ram_fill(&ram, 0x1000, 64 * KiB, 1, false);
	ram_fill(&ram, 3 * MiB, 64 * KiB, 2, true);
	shot_write(argv[1], &s);
	ram_free(&ram);
	return 0;
}
