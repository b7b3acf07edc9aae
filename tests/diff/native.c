/*
 * The host's own processor: pages at the common addresses, the way in and out (native.S), and the
 * signals that faults become.
 */
#include <cpuid.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#include <linux/filter.h>
#include <linux/seccomp.h>

#include "diff.h"

/* native.S knows the offsets. */
struct native_context {
	uint64_t gpr[16];
	uint64_t frame[5];		/* RIP CS RFLAGS RSP SS for IRETQ */
	uint64_t fs_base, gs_base;
	uint64_t host_rsp, host_fs, host_gs;
	uint64_t in_native;
	uint64_t use_fsgs;
	uint64_t use_segments;		/* 32-bit code: load DS and ES */
	uint64_t host_ds, host_es;
	uint64_t rflags;
	uint8_t ymmh[16][16];
	uint64_t has_avx;
	_Alignas(64) struct fx_image fx;
};
_Static_assert(offsetof(struct native_context, frame) == 128, "native.S");
_Static_assert(offsetof(struct native_context, fs_base) == 168, "native.S");
_Static_assert(offsetof(struct native_context, host_rsp) == 184, "native.S");
_Static_assert(offsetof(struct native_context, in_native) == 208, "native.S");
_Static_assert(offsetof(struct native_context, use_segments) == 224, "native.S");
_Static_assert(offsetof(struct native_context, rflags) == 248, "native.S");
_Static_assert(offsetof(struct native_context, ymmh) == 256, "native.S");
_Static_assert(offsetof(struct native_context, has_avx) == 512, "native.S");
_Static_assert(offsetof(struct native_context, fx) == 576, "native.S");

extern struct native_context diff_context;
__attribute__((visibility("hidden"))) struct native_context diff_context;

void diff_native_enter(void);
void diff_native_signal(int, siginfo_t *, void *);
extern const char diff_native_exit[], diff_native_end[];
int diff_native_caught(int sig, siginfo_t *info, void *context);

void (*native_tick)(void);

#define ALT_STACK_SIZE 0x10000

static struct {
	uint8_t *code, *data;		/* writable views of the common pages */
	volatile unsigned ticks;	/* since the case began */
	/* What a signal brought. */
	volatile bool caught;
	struct outcome *out;
} native;

/* ---- Signals ------------------------------------------------------------------ */

static void die(const char *why, const ucontext_t *u)
{
	char text[160];
	int n = snprintf(text, sizeof text, "diff: %s: trap %lld at native.S+%#llx, address %#llx\n", why,
			 (long long)u->uc_mcontext.gregs[REG_TRAPNO],
			 (long long)u->uc_mcontext.gregs[REG_RIP] - (long long)(uintptr_t)diff_native_enter,
			 (long long)u->uc_mcontext.gregs[REG_CR2]);

	if (write(2, text, (size_t)n) < 0)
		_exit(3);
	_exit(2);
}

/* The frame holds an XSAVE area in the standard form (SDM vol. 1, 13.4), AVX's component at 576. */
static void capture_avx(const uint8_t *area, struct outcome *o)
{
	if (load64(area + 512) & 4)
		memcpy(o->m.ymmh, area + 576, sizeof o->m.ymmh);
	else
		memset(o->m.ymmh, 0, sizeof o->m.ymmh);
}

static void capture(const ucontext_t *u, struct outcome *o)
{
	static const int order[16] = {
		REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
		REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
	};
	const greg_t *g = u->uc_mcontext.gregs;

	for (unsigned i = 0; i < 16; i++)
		o->m.gpr[i] = (uint64_t)g[order[i]];
	o->m.rip = (uint64_t)g[REG_RIP];
	o->m.rflags = (uint64_t)g[REG_EFL];
	o->vector = (uint8_t)g[REG_TRAPNO];
	o->error = (uint32_t)g[REG_ERR];
	o->cr2 = (uint64_t)g[REG_CR2];
	memcpy(&o->m.fx, u->uc_mcontext.fpregs, sizeof o->m.fx);
	if (diff_context.has_avx)
		capture_avx((const uint8_t *)u->uc_mcontext.fpregs, o);
}

/* Called by native.S.  Nonzero: the case is over. */
int diff_native_caught(int sig, siginfo_t *info, void *context)
{
	const ucontext_t *u = context;
	uint64_t rip = (uint64_t)u->uc_mcontext.gregs[REG_RIP];
	bool ours = rip >= (uintptr_t)diff_native_enter && rip < (uintptr_t)diff_native_end;

	if (sig == SIGALRM) {
		native.ticks++;
		if (!diff_context.in_native) {
			if (native_tick)
				native_tick();
			return 0;
		}
		if (native.ticks < 3 || ours)
			return 0;
		native.out->ending = END_TIMEOUT;
	} else if (!diff_context.in_native || ours) {
		die("the tester itself faulted", u);
	} else {
		native.out->ending = sig == SIGSYS ? END_ESCAPED : END_FAULT;
	}
	capture(u, native.out);
	native.caught = true;
	return 1;
}

static int install_signals(void)
{
	static const int signals[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS, SIGALRM };
	struct sigaction a = { .sa_sigaction = diff_native_signal,
			       .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };
	stack_t alt = { .ss_size = ALT_STACK_SIZE };
	struct itimerval half = { { 0, 500000 }, { 0, 500000 } };

	alt.ss_sp = mmap(NULL, ALT_STACK_SIZE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (alt.ss_sp == MAP_FAILED || sigaltstack(&alt, NULL) < 0)
		return -1;
	for (unsigned i = 0; i < ARRAY_SIZE(signals); i++)
		if (sigaction(signals[i], &a, NULL) < 0)
			return -1;
	return setitimer(ITIMER_REAL, &half, NULL);
}

/* ---- Pages ---------------------------------------------------------------------- */

static bool map_at(uint32_t addr, size_t size, int prot, int fd, off_t off)
{
	void *want = (void *)(uintptr_t)addr;

	return mmap(want, size, prot,
		    MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_POPULATE, fd, off) == want;
}

/* EXIT_BASE: jmp *2(%rip), an aligned pointer into native.S; EXIT32_BASE: a far jump to EXIT_BASE. */
static void write_exits(uint8_t *p)
{
	static const uint8_t jmp[8] = { 0xff, 0x25, 2, 0, 0, 0 };
	uint8_t *p32 = p + (EXIT32_BASE - EXIT_BASE);

	memcpy(p, jmp, sizeof jmp);
	store64(p + sizeof jmp, (uintptr_t)diff_native_exit);
	p32[0] = 0xea;
	store32(p32 + 1, EXIT_BASE);
	store16(p32 + 5, SEL_CS64);
}

static bool make_pages(void)
{
	size_t size = CODE_SIZE + DATA_SIZE + 0x1000;
	int fd = memfd_create("diff", 0);
	uint8_t *view;
	bool ok;

	if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
		return false;
	view = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (view == MAP_FAILED)
		return false;
	native.code = view;
	native.data = view + CODE_SIZE;
	memset(native.code, CODE_FILL, CODE_SIZE);
	write_exits(view + CODE_SIZE + DATA_SIZE);
	ok = map_at(CODE_BASE, CODE_SIZE, PROT_READ | PROT_EXEC, fd, 0) &&
	     map_at(EXIT_BASE, 0x1000, PROT_READ | PROT_EXEC, fd, CODE_SIZE + DATA_SIZE);
	for (unsigned i = 0; i < DATA_PAGES && ok; i++)
		if (i != DATA_HOLE)
			ok = map_at(DATA_BASE + i * 0x1000, 0x1000,
				    i == DATA_RO ? PROT_READ : PROT_READ | PROT_WRITE, fd,
				    (off_t)(CODE_SIZE + i * 0x1000));
	close(fd);
	return ok;
}

/* System calls from the case's pages do not happen: SIGSYS instead. */
static int forbid_calls(void)
{
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, instruction_pointer) + 4),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 4),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, instruction_pointer)),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, CODE_BASE, 0, 2),
		BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, CODE_BASE + CODE_SIZE, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { ARRAY_SIZE(f), f };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -1;
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog);
}

/* ---- Running ---------------------------------------------------------------------- */

static void enter(const struct diff_case *k, struct outcome *o)
{
	struct native_context *c = &diff_context;

	memcpy(c->gpr, k->in.gpr, sizeof c->gpr);
	c->frame[0] = k->in.rip;
	c->frame[1] = k->compat ? SEL_CS32 : SEL_CS64;
	c->frame[2] = k->in.rflags;
	c->frame[3] = k->in.gpr[4 /* RSP */];
	c->frame[4] = SEL_DATA;
	c->fs_base = k->in.fs_base;
	c->gs_base = k->in.gs_base;
	c->use_segments = k->compat;
	c->fx = k->in.fx;
	memcpy(c->ymmh, k->in.ymmh, sizeof c->ymmh);
	native.caught = false;
	native.out = o;
	native.ticks = 0;
	diff_native_enter();
	o->m.fs_base = c->fs_base;
	o->m.gs_base = c->gs_base;
	if (native.caught)
		return;
	memcpy(o->m.gpr, c->gpr, sizeof o->m.gpr);
	o->m.fx = c->fx;
	memcpy(o->m.ymmh, c->ymmh, sizeof o->m.ymmh);
	o->m.rflags = c->rflags;
	o->m.rip = k->compat ? EXIT32_BASE : EXIT_BASE;
	o->ending = END_EXIT;
}

static void place_code(const struct diff_case *k, bool in)
{
	uint8_t *at = native.code + (k->start - CODE_BASE);

	if (in)
		memcpy(at, k->native_code, k->len);
	else
		memset(at, CODE_FILL, k->len);
}

static void place_memory(const uint8_t *memory)
{
	memcpy(native.data, memory, DATA_HOLE * 0x1000);
	memcpy(native.data + DATA_RW2 * 0x1000, memory + DATA_RW2 * 0x1000, 0x1000);
}

void native_run(const struct diff_case *k, const uint8_t *memory, struct outcome *o)
{
	place_memory(memory);
	place_code(k, true);
	enter(k, o);
	place_code(k, false);
	o->memory = native.data;
}

/* ---- What the host can do ------------------------------------------------------------ */

static bool runs_compat(void)
{
	struct diff_case k = { .compat = true, .start = CODE_BASE, .len = 6 };
	struct outcome o = { .ending = END_BROKEN };

	k.native_code[0] = 0x40;	/* inc %eax here, a prefix in 64-bit code */
	k.native_code[1] = 0xe9;
	store32(k.native_code + 2, EXIT32_BASE - (CODE_BASE + 6));
	k.in.rip = CODE_BASE;
	k.in.rflags = 2;
	k.in.fx.fcw = 0x37f;
	k.in.fx.mxcsr = 0x1f80;
	place_code(&k, true);
	enter(&k, &o);
	place_code(&k, false);
	return o.ending == END_EXIT && o.m.gpr[0] == 1;
}

const char *native_init(struct host_facts *host)
{
	uint16_t cs, ss;
	uint32_t leaf, vendor[3];

	asm("mov %%cs, %0" : "=r"(cs));
	asm("mov %%ss, %0" : "=r"(ss));
	if (cs != SEL_CS64 || ss != SEL_DATA)
		return "the host's code segment is not Linux's";
	if (!make_pages())
		return "the host does not allow executable pages at fixed addresses";
	if (install_signals() < 0 || forbid_calls() < 0)
		return "the host does not allow signal stacks or system call filters";
	__get_cpuid(0, &leaf, &vendor[0], &vendor[2], &vendor[1]);
	host->intel = !memcmp(vendor, "GenuineIntel", 12);
	host->fsgsbase = getauxval(AT_HWCAP2) & 2;	/* HWCAP2_FSGSBASE */
	diff_context.use_fsgs = host->fsgsbase;
	diff_context.has_avx = host->v3;
	host->compat = runs_compat();
	return NULL;
}
