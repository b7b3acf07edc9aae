#include "clock/vmclock.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>

#include "boot/page.h"
#include "boot/tables.h"
#include "chipset/chipset.h"
#include "vm/vm.h"

/* The kernel's clock may be off by so much more each second that nobody corrects it (NTP, MAXFREQ). */
#define HOST_PPM	500

struct vmclock_model {
	uint32_t seq_count;
	uint64_t disruption_marker, generation;
};

struct vmclock {
	struct device dev;
	struct vmclock_model m;
	struct shared_page page;
	bool keep;			/* restored exactly, and not resumed yet */
	int step_fd;			/* tells that the host's clock was set; -1: none */
	struct loop_watch *step;
};

/* ---- What is known of time --------------------------------------------- */

/* 2^(64 + shift) / hz, the largest that fits. */
static uint64_t tick_period(uint64_t hz, unsigned *shift)
{
	*shift = 63 - (unsigned)__builtin_clzll(hz);
	if (!(hz & (hz - 1)))
		--*shift;
	return (uint64_t)(((unsigned __int128)1 << (64 + *shift)) / hz);
}

/* TSC and UTC at the same moment, as near as the host reads its clocks. */
static void put_pair(const struct vmclock *c, uint8_t *p)
{
	const struct guest_clock *clock = &c->dev.vm->clock;
	int64_t before = clock_now(clock), after;
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	after = clock_now(clock);
	store64(p + VMCLOCK_COUNTER, clock_ns_to_tsc(clock, before + (after - before) / 2));
	store64(p + VMCLOCK_TIME_SEC, (uint64_t)t.tv_sec);
	store64(p + VMCLOCK_TIME_FRAC,
		(uint64_t)(((unsigned __int128)(uint64_t)t.tv_nsec << 64) / NSEC_PER_SEC));
}

/* What the host's kernel says of its own clock; without its word nothing is claimed. */
static uint64_t put_quality(uint8_t *p, uint64_t period)
{
	struct timex x = { 0 };
	uint64_t flags = 0;
	int state = adjtimex(&x);

	if (state < 0)
		return 0;
	if (x.tai > 0 && x.tai <= INT16_MAX) {
		store16(p + VMCLOCK_TAI_OFFSET, (uint16_t)x.tai);
		flags |= VMCLOCK_FLAG_TAI_OFFSET;
	}
	p[VMCLOCK_LEAP] = state == TIME_OOP ? 3 : x.status & STA_INS ? 1 : x.status & STA_DEL ? 2 : 0;
	if ((x.status & STA_UNSYNC) || x.esterror < 0 || x.maxerror < 0)
		return flags;
	p[VMCLOCK_STATUS] = VMCLOCK_STATUS_SYNCHRONIZED;
	store64(p + VMCLOCK_TIME_ESTERROR, (uint64_t)x.esterror * 1000);
	store64(p + VMCLOCK_TIME_MAXERROR, (uint64_t)x.maxerror * 1000);
	store64(p + VMCLOCK_PERIOD_MAXERROR, period / (1000000 / HOST_PPM));
	return flags | VMCLOCK_FLAG_TIME_ESTERROR | VMCLOCK_FLAG_TIME_MAXERROR |
	       VMCLOCK_FLAG_PERIOD_MAXERROR;
}

static void fill(const struct vmclock *c, uint8_t p[VMCLOCK_BYTES])
{
	const struct guest_clock *clock = &c->dev.vm->clock;
	bool real = clock->mode == CLOCK_MODE_REALTIME;
	uint64_t flags = VMCLOCK_FLAG_GENERATION | VMCLOCK_FLAG_NOTIFICATION, period;
	unsigned shift;

	memset(p, 0, VMCLOCK_BYTES);
	store32(p + VMCLOCK_MAGIC, VMCLOCK_MAGIC_VALUE);
	store32(p + VMCLOCK_SIZE, SHARED_PAGE_SIZE);
	store16(p + VMCLOCK_VERSION, 1);
	p[VMCLOCK_COUNTER_ID] = real ? VMCLOCK_COUNTER_TSC : VMCLOCK_COUNTER_INVALID;
	store32(p + VMCLOCK_SEQ_COUNT, c->m.seq_count);
	store64(p + VMCLOCK_DISRUPTION, c->m.disruption_marker);
	store64(p + VMCLOCK_GENERATION, c->m.generation);
	if (real) {
		period = tick_period(clock->tsc_khz * 1000ull, &shift);
		p[VMCLOCK_PERIOD_SHIFT] = (uint8_t)shift;
		store64(p + VMCLOCK_PERIOD, period);
		flags |= put_quality(p, period);
		put_pair(c, p);
	}
	store64(p + VMCLOCK_FLAGS, flags);
}

/* ---- The page ---------------------------------------------------------- */

static void put_sequence(struct vmclock *c)
{
	uint8_t seq[4];

	store32(seq, c->m.seq_count);
	atomic_thread_fence(memory_order_seq_cst);
	shared_page_write(&c->page, VMCLOCK_SEQ_COUNT, seq, sizeof(seq));
	atomic_thread_fence(memory_order_seq_cst);
}

/* One update: odd, the fields, even, and the guest is told. */
static void update(struct vmclock *c)
{
	const size_t first = VMCLOCK_SEQ_COUNT + 4;
	uint8_t p[VMCLOCK_BYTES];

	c->m.seq_count++;
	put_sequence(c);
	fill(c, p);
	shared_page_write(&c->page, first, p + first, sizeof(p) - first);
	c->m.seq_count++;
	put_sequence(c);
	chipset_gpe(c->dev.vm, VMCLOCK_GPE);
}

/* Firmware says where it is, and has put zeroes there. */
static void placed(void *opaque)
{
	struct vmclock *c = opaque;
	uint8_t p[VMCLOCK_BYTES];

	fill(c, p);
	shared_page_write(&c->page, 0, p, sizeof(p));
}

void vmclock_renew(struct vmclock *c, uint64_t disruption, uint64_t generation)
{
	c->m.disruption_marker = disruption;
	c->m.generation = generation;
	update(c);
}

void vmclock_keep(struct vmclock *c)
{
	c->keep = true;
}

/* Guest time stood while the world's went on: what the guest knew of its TSC is not true any more. */
static void vmclock_resume(struct device *d)
{
	struct vmclock *c = container_of(d, struct vmclock, dev);

	if (d->vm->clock.mode == CLOCK_MODE_REALTIME && !c->keep) {
		c->m.disruption_marker++;
		update(c);
	}
	c->keep = false;
}

/* ---- The host's clock was set ------------------------------------------ */

static int watch_steps(int fd)
{
	/* It never goes off (in 292 years): it is cancelled whenever the clock jumps. */
	const struct itimerspec never = { .it_value.tv_sec = INT64_MAX / NSEC_PER_SEC };

	return timerfd_settime(fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &never, NULL);
}

static void stepped(void *opaque, uint32_t events)
{
	struct vmclock *c = opaque;
	uint64_t n;

	if (read(c->step_fd, &n, sizeof(n)) >= 0 || errno != ECANCELED)
		return;
	(void)watch_steps(c->step_fd);
	if (!c->dev.vm->quiesced)
		update(c);	/* else when it resumes */
}

/* A host that cannot tell is no reason not to start. */
static void start_watching(struct vmclock *c)
{
	struct skep_error ignored;

	if (c->dev.vm->clock.mode != CLOCK_MODE_REALTIME)
		return;
	c->step_fd = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	if (c->step_fd >= 0 && watch_steps(c->step_fd) == 0)
		c->step = loop_watch(c->dev.vm, c->step_fd, EPOLLIN, stepped, c, &ignored);
}

/* ---- Hooks ------------------------------------------------------------- */

static int vmclock_init(struct device *d, struct skep_error *e)
{
	struct vmclock *c = container_of(d, struct vmclock, dev);

	c->step_fd = -1;
	c->m.disruption_marker = vm_entropy(d->vm);
	c->m.generation = vm_entropy(d->vm);
	if (shared_page_init(&c->page, d->vm, FILE_VMCLOCK, FILE_VMCLOCK_ADDR, placed, c, e) < 0)
		return -ENOMEM;
	start_watching(c);
	return 0;
}

static void vmclock_finish(struct device *d)
{
	struct vmclock *c = container_of(d, struct vmclock, dev);

	if (c->step)
		loop_unwatch(c->step);
	if (c->step_fd >= 0)
		close(c->step_fd);
}

static void vmclock_reset(struct device *d)
{
	shared_page_reset(&container_of(d, struct vmclock, dev)->page);
}

static void vmclock_export(const struct device *d, void *model)
{
	*(struct vmclock_model *)model = container_of(d, const struct vmclock, dev)->m;
}

static int vmclock_validate(const struct device *d, const void *model, struct skep_error *e)
{
	const struct vmclock_model *m = model;

	if (m->seq_count & 1)
		return skep_fail(e, EINVAL, "%s: seq_count %u is odd, as it only is in the middle of a "
				 "change", d->name, m->seq_count);
	return 0;
}

static void vmclock_commit(struct device *d, const void *model)
{
	container_of(d, struct vmclock, dev)->m = *(const struct vmclock_model *)model;
}

static const struct state_field fields[] = {
	STATE_U32(struct vmclock_model, seq_count),
	STATE_U64(struct vmclock_model, disruption_marker),
	STATE_U64(struct vmclock_model, generation),
};

const struct state_record vmclock_record = {
	.kind = "vmclock",
	.version = 1,
	.model_size = sizeof(struct vmclock_model),
	.fields = fields,
	.nfields = ARRAY_SIZE(fields),
};

static const struct config_schema no_keys;

const struct device_type vmclock_type = {
	.name = "vmclock",
	.help = "VMClock: how the guest's TSC relates to UTC",
	.config = &no_keys,
	.state = &vmclock_record,
	.size = sizeof(struct vmclock),
	.init = vmclock_init,
	.finish = vmclock_finish,
	.reset = vmclock_reset,
	.quiesce = device_nop,
	.resume = vmclock_resume,
	.export = vmclock_export,
	.validate = vmclock_validate,
	.commit = vmclock_commit,
};

struct vmclock *vmclock_create(struct vm *vm, struct skep_error *e)
{
	struct device *d = device_create(vm, &vmclock_type, "vmclock", NULL, e);

	return d ? container_of(d, struct vmclock, dev) : NULL;
}

struct vmclock *vmclock_of(const struct vm *vm)
{
	for (struct device *d = vm->devices; d; d = d->next)
		if (d->type == &vmclock_type)
			return container_of(d, struct vmclock, dev);
	return NULL;
}
