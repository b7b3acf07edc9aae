/*
 * Where all entropy of the machine comes from.
 *
 * With a seed (clock=virtual, or seed= given) it is xoshiro256**, seeded through
 * splitmix64 (Blackman and Vigna, "Scrambled linear pseudorandom number
 * generators"), so that a run can be repeated.  Without one it is the host's.
 */
#include "vm/entropy.h"

#include <sys/random.h>

#include "vm/vm.h"

static uint64_t splitmix64(uint64_t *x)
{
	uint64_t z = *x += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

void entropy_init(struct vm *vm, bool seeded, uint64_t seed)
{
	uint64_t x = seed;
	unsigned i;

	vm->seeded = seeded;
	vm->seed = seed;
	vm->entropy_left = 0;
	for (i = 0; i < 4; i++)
		vm->entropy_state[i] = splitmix64(&x);
}

static uint64_t rotl(uint64_t v, unsigned n)
{
	return v << n | v >> (64 - n);
}

static uint64_t xoshiro(uint64_t s[4])
{
	uint64_t result = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;

	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = rotl(s[3], 45);
	return result;
}

uint64_t vm_entropy(struct vm *vm)
{
	uint64_t *s = vm->entropy_state, v;

	if (vm->seeded)
		return xoshiro(s);
	/* Four words a system call; a word given out is forgotten. */
	if (!vm->entropy_left) {
		if (getrandom(s, sizeof(vm->entropy_state), 0) !=
		    (ssize_t)sizeof(vm->entropy_state)) {
			vm_request_error(vm, "the host gives no random numbers (getrandom failed)");
			return 0;
		}
		vm->entropy_left = 4;
	}
	v = s[--vm->entropy_left];
	s[vm->entropy_left] = 0;
	return v;
}
