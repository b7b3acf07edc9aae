/*
 * What the guest is timed with.  bench NAME... runs each and prints
 *
 *	BENCH name seconds answer
 *
 * with the processor time that it took, children's too, the best of a few turns: what else runs on
 * the host only ever adds.  TURN name n before each turn and after the last lets a host that
 * listens take its own processor time.  The same binary runs natively for comparison.  Built
 * for plain x86-64 but for avx2, so that every processor takes the same way through it.
 */
#define _GNU_SOURCE
#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define TURNS 3

static volatile uint64_t sink;

static double now(void)
{
	struct rusage u[2];
	double sum = 0;

	getrusage(RUSAGE_SELF, &u[0]);
	getrusage(RUSAGE_CHILDREN, &u[1]);
	for (int i = 0; i < 2; i++)
		sum += u[i].ru_utime.tv_sec + u[i].ru_stime.tv_sec +
		       (u[i].ru_utime.tv_usec + u[i].ru_stime.tv_usec) / 1e6;
	return sum;
}

static void *pages(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED) {
		perror("bench: mmap");
		exit(1);
	}
	return p;
}

/* Each returns what a correct run must give; main compares. */

static uint64_t integer(void)
{
	uint64_t x = 88172645463325252ull, sum = 0;

	for (uint64_t i = 1; i <= 20000000; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		sum += x % 1000 + i * 3;
	}
	return sum;
}

/*
 * The one above waits for its multiplications, on any processor alike; this one has as many instructions
 * to execute as it can have: Thomas Wang's and Bob Jenkins' kind of mixing, with comparisons.
 */
static uint64_t alu(void)
{
	uint64_t a = 0x9e3779b97f4a7c15ull, b = 1, c = 2, d = 3;

	for (uint64_t i = 1; i <= 20000000; i++) {
		a = (a << 7 | a >> 57) + i;
		b += (a & 0xff) > (i & 0xff) ? c : ~c;
		c ^= d >> 5;
		d = (d << 11) - (a | i);
		if ((b ^ i) & 0x4000)
			c += i;
	}
	return a ^ b ^ c ^ d;
}

static __attribute__((noinline)) uint64_t fib_of(unsigned n)
{
	return n < 2 ? n : fib_of(n - 1) + fib_of(n - 2);
}

static uint64_t fib(void)
{
	return fib_of(33);
}

static int ascending(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static uint64_t sort(void)
{
	enum { N = 1000000 };
	uint32_t *v = malloc(N * sizeof(*v)), x = 2463534242u;
	uint64_t sum = 0;

	if (!v)
		exit(1);
	for (size_t i = 0; i < N; i++) {
		x ^= x << 13;
		x ^= x >> 17;
		x ^= x << 5;
		v[i] = x;
	}
	qsort(v, N, sizeof(*v), ascending);
	for (size_t i = 0; i < N; i++)
		sum += v[i] * (uint64_t)(i & 0xff);
	free(v);
	return sum;
}

#define DIM 256

static uint64_t matrix(void)
{
	double *a = pages(DIM * DIM * sizeof(double)), *b = pages(DIM * DIM * sizeof(double));
	double *c = pages(DIM * DIM * sizeof(double));
	uint64_t sum = 0;

	for (int i = 0; i < DIM * DIM; i++) {
		a[i] = i % 17 + 0.5;
		b[i] = i % 13 - 6.25;
	}
	for (int round = 0; round < 4; round++)
		for (int i = 0; i < DIM; i++)
			for (int k = 0; k < DIM; k++) {
				__m128d f = _mm_set1_pd(a[i * DIM + k]);

				for (int j = 0; j < DIM; j += 4) {
					double *p = c + i * DIM + j, *q = b + k * DIM + j;

					_mm_store_pd(p, _mm_add_pd(_mm_load_pd(p),
						     _mm_mul_pd(f, _mm_load_pd(q))));
					_mm_store_pd(p + 2, _mm_add_pd(_mm_load_pd(p + 2),
						     _mm_mul_pd(f, _mm_load_pd(q + 2))));
				}
			}
	for (int i = 0; i < DIM * DIM; i++)
		sum += (int64_t)(c[i] * 8) * (i & 0xff);
	return sum;
}

/* The same product by AVX2 and FMA, with some integer work of the same width. */
__attribute__((target("avx2,fma"))) static uint64_t avx2(void)
{
	double *a = pages(DIM * DIM * sizeof(double)), *b = pages(DIM * DIM * sizeof(double));
	double *c = pages(DIM * DIM * sizeof(double));
	__m256i mix = _mm256_set1_epi32(0x9e3779b9);
	uint64_t sum = 0;

	for (int i = 0; i < DIM * DIM; i++) {
		a[i] = i % 17 + 0.5;
		b[i] = i % 13 - 6.25;
	}
	for (int round = 0; round < 16; round++)
		for (int i = 0; i < DIM; i++)
			for (int k = 0; k < DIM; k++) {
				__m256d f = _mm256_set1_pd(a[i * DIM + k]);

				for (int j = 0; j < DIM; j += 8) {
					double *p = c + i * DIM + j, *q = b + k * DIM + j;

					_mm256_store_pd(p, _mm256_fmadd_pd(f, _mm256_load_pd(q),
									   _mm256_load_pd(p)));
					_mm256_store_pd(p + 4, _mm256_fmadd_pd(f, _mm256_load_pd(q + 4),
									       _mm256_load_pd(p + 4)));
				}
				mix = _mm256_xor_si256(_mm256_slli_epi32(mix, 5),
						       _mm256_add_epi32(mix, _mm256_set1_epi32(k)));
			}
	for (int i = 0; i < DIM * DIM; i++)
		sum += (int64_t)(c[i] * 8) * (i & 0xff);
	return sum ^ (uint32_t)_mm256_extract_epi32(mix, 3);
}

/*
 * Two forms: buffers that are new each turn, and buffers that stay.  With new ones
 * the two lie 4 MiB apart with cold TLBs, as after any large malloc.
 */
static uint64_t copy(uint8_t *a, uint8_t *b)
{
	enum { N = 4 << 20 };
	uint64_t sum = 0;

	for (int i = 0; i < N; i += 64)
		a[i] = i >> 6;
	for (int round = 0; round < 16; round++) {
		void *d = b, *s = a;
		size_t n = N;

		a[round] = round;
		__asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
	}
	for (int i = 0; i < N; i += 61)
		sum += b[i];
	return sum;
}

static uint64_t movsb(void)
{
	uint8_t *a = pages(4 << 20), *b = pages(4 << 20);

	return copy(a, b);
}

static uint64_t movsb_warm(void)
{
	static uint8_t *a, *b;

	if (!a) {
		a = pages(4 << 20);
		b = pages(4 << 20);
	}
	return copy(a, b);
}

static uint64_t chase(void)
{
	enum { N = 1 << 19 };	/* times 64 bytes: 32 MiB, no cache and no TLB holds it */
	uint32_t *next = pages((size_t)N * 64), x = 12345;
	uint32_t *order = pages(N * sizeof(*order)), at = 0;

	for (uint32_t i = 0; i < N; i++)
		order[i] = i;
	for (uint32_t i = N - 1; i > 0; i--) {
		uint32_t j, t = order[i];

		x = x * 1664525u + 1013904223u;
		j = x % i;	/* Sattolo: one single cycle */
		order[i] = order[j];
		order[j] = t;
	}
	for (uint32_t i = 0; i < N; i++)
		next[i * 16] = order[i];
	for (uint32_t i = 0; i < 2 * N; i++)
		at = next[at * 16];
	return at;
}

static uint64_t syscalls(void)
{
	uint64_t sum = 0;

	for (int i = 0; i < 300000; i++)
		sum += syscall(SYS_getppid) >= 0;
	return sum;
}

static const char *self;

static uint64_t forkexec(void)
{
	uint64_t sum = 0;

	for (int i = 0; i < 100; i++) {
		int status = 0;
		pid_t pid = fork();

		if (pid < 0)
			break;
		if (!pid) {
			execl(self, self, "--seven", NULL);
			_exit(1);
		}
		waitpid(pid, &status, 0);
		sum += WEXITSTATUS(status);
	}
	return sum;
}

static uint64_t faults(void)
{
	enum { N = 32 << 20 };
	uint64_t sum = 0;

	for (int round = 0; round < 2; round++) {
		uint8_t *p = pages(N);

		for (size_t i = 0; i < N; i += 4096)
			sum += ++p[i];
		munmap(p, N);
	}
	return sum;
}

static const struct { const char *name; uint64_t (*run)(void); uint64_t right; } list[] = {
	{ "integer", integer, 0 },
	{ "alu", alu, 0 },
	{ "fib", fib, 3524578 },
	{ "sort", sort, 0 },
	{ "matrix", matrix, 0 },
	{ "avx2", avx2, 0 },
	{ "movsb", movsb, 0 },
	{ "movsb_warm", movsb_warm, 0 },
	{ "chase", chase, 0 },
	{ "syscall", syscalls, 300000 },
	{ "forkexec", forkexec, 700 },
	{ "faults", faults, 16384 },
};

int main(int argc, char **argv)
{
	int bad = 0;

	self = "/proc/self/exe";
	if (argc == 2 && !strcmp(argv[1], "--seven"))
		return 7;
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 1; i < argc; i++)
		for (size_t k = 0; k < sizeof(list) / sizeof(list[0]); k++) {
			double took = 0;

			if (strcmp(argv[i], list[k].name))
				continue;
			if (list[k].run == avx2 && !(__builtin_cpu_supports("avx2") &&
						     __builtin_cpu_supports("fma")))
				continue;
			for (int turn = 0; turn < TURNS; turn++) {
				double start, end;

				printf("TURN %s %d\n", list[k].name, turn);
				start = now();
				sink = list[k].run();
				end = now();
				if (!turn || end - start < took)
					took = end - start;
			}
			printf("TURN %s %d\n", list[k].name, TURNS);
			if (list[k].right && sink != list[k].right) {
				printf("WRONG %s %llu\n", list[k].name, (unsigned long long)sink);
				bad = 1;
				continue;
			}
			printf("BENCH %s %.6f %llu\n", list[k].name, took, (unsigned long long)sink);
		}
	return bad;
}
