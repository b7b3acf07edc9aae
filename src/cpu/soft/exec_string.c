/*
 * MOVS STOS LODS SCAS CMPS, with and without REP.
 *
 * A REP goes page by page: as many iterations as lie in one page of source and
 * destination are done at once on host memory, the rest one by one through the
 * ordinary access path.  Registers are written back after each stretch, so that
 * a fault finds them at the iteration that faulted.  Each iteration counts as
 * one instruction, and a REP stops for interrupts between iterations.
 */
#include "cpu/soft/cache.h"
#include "cpu/soft/exec.h"

/* The address-size dependent view of rCX, rSI and rDI. */
struct string {
	uint64_t mask;		/* of addresses and the count */
	uint64_t step;		/* added per iteration, two's complement */
	unsigned size;
	unsigned addr_size;
	uint8_t seg;		/* of the source */
	bool flat;		/* offsets are linear addresses (plus base) */
	uint64_t base;		/* of the source segment when flat */
};

static struct string string_begin(struct soft_cpu *c, const struct soft_op *op)
{
	struct string s = { .size = op->size, .seg = op->seg };
	bool long64 = c->mode & MODE_CS64;

	s.addr_size = op->flags & OPF_ADDR32 ? 4 : op->flags & OPF_ADDR16 ? 2 : 8;
	s.mask = s.addr_size == 8 ? UINT64_MAX : s.addr_size == 4 ? UINT32_MAX : 0xffff;
	s.step = c->s.rflags & RFLAGS_DF ? -(uint64_t)s.size : s.size;
	if (long64 && (s.seg == SEG_FS || s.seg == SEG_GS))
		s.base = c->s.seg[s.seg].base;
	s.flat = long64 || (c->mode & MODE_FLAT && s.addr_size == 4 && s.seg <= SEG_DS);
	return s;
}

static inline uint64_t offset_of(const struct soft_cpu *c, const struct string *s, unsigned reg)
{
	return c->r[reg] & s->mask;
}

static inline uint64_t source(struct soft_cpu *c, const struct soft_op *op, const struct string *s)
{
	uint64_t off = offset_of(c, s, REG_RSI);

	return s->flat ? s->base + off : soft_seg_lin(c, op, s->seg, off, s->size, false);
}

static inline uint64_t destination(struct soft_cpu *c, const struct soft_op *op,
				   const struct string *s, bool write)
{
	uint64_t off = offset_of(c, s, REG_RDI);

	return s->flat ? off : soft_seg_lin(c, op, SEG_ES, off, s->size, write);
}

/* Iterations from lin that stay in its page and below the wrap of the offset, going up. */
static uint64_t stretch(const struct string *s, uint64_t lin, uint64_t off, uint64_t n)
{
	uint64_t bytes = 4096 - (lin & 0xfff);

	if (s->mask != UINT64_MAX)
		bytes = MIN(bytes, s->mask - off + 1);
	return MIN(n, bytes / s->size);
}

static void advance(struct soft_cpu *c, const struct string *s, unsigned reg, uint64_t n)
{
	soft_reg_set(c, SLOT(reg), s->addr_size, c->r[reg] + s->step * n);
}

/* How many iterations may run now. */
static uint64_t rep_allowed(const struct soft_cpu *c, const struct string *s)
{
	uint64_t count = c->r[REG_RCX] & s->mask;

	return MIN(count, (uint64_t)c->budget + 1);
}

/*
 * n iterations are done: rCX and the instruction count.  RF is set between
 * iterations and clear after the last (SDM vol. 3, 17.3.1.1).
 */
static void rep_done(struct soft_cpu *c, const struct string *s, uint64_t n)
{
	c->s.rflags |= RFLAGS_RF;
	soft_reg_set(c, SLOT(REG_RCX), s->addr_size, (c->r[REG_RCX] & s->mask) - n);
	c->budget -= (int64_t)n;
}

/*
 * After the loop: the first iteration is the instruction itself, which the
 * block has paid for.  Goes on if the count ran out (or a condition ended it),
 * else comes back to this instruction later.
 */
static const struct soft_op *rep_end(struct soft_cpu *c, const struct soft_op *op, bool finished)
{
	c->budget += 1;
	if (finished) {
		c->s.rflags &= ~(uint64_t)RFLAGS_RF;
		return op + 1;
	}
	return soft_leave(c, op, soft_op_rip(c, op));
}

/*
 * Somebody wants a look between two iterations; or the last one wrote over this
 * very instruction, and the next is of what stands there now.
 */
static inline bool interrupted(struct soft_cpu *c, const struct soft_op *op)
{
	return atomic_load_explicit(&c->kick, memory_order_relaxed) || op->fn == op_stale;
}

static inline bool rcx_zero(const struct soft_cpu *c, const struct string *s)
{
	return !(c->r[REG_RCX] & s->mask);
}

/*
 * A REP with 32-bit addresses first of all takes their upper halves from the count
 * and from the pointers of MOVS and STOS, whatever happens then: so do Intel's
 * processors.  Says whether there is something to do.
 */
static bool rep_begin(struct soft_cpu *c, const struct string *s, bool rsi, bool rdi)
{
	if (s->addr_size == 4) {
		W32(c, SLOT(REG_RCX), c->r[REG_RCX]);
		if (rsi)
			W32(c, SLOT(REG_RSI), c->r[REG_RSI]);
		if (rdi)
			W32(c, SLOT(REG_RDI), c->r[REG_RDI]);
	}
	return !rcx_zero(c, s);
}

static inline void *bulk(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, uint64_t size,
			 bool write)
{
	void *p = write ? soft_host_write(c, lin, (unsigned)size)
			: soft_host_read(c, lin, (unsigned)size);

	return p ? p : soft_bulk_slow(c, op, lin, (unsigned)size, write);
}

/* ---- MOVS ------------------------------------------------------------------ */

static void movs_once(struct soft_cpu *c, const struct soft_op *op, const struct string *s)
{
	uint64_t from = source(c, op, s), to = destination(c, op, s, true);

	soft_store(c, op, to, s->size, soft_load(c, op, from, s->size));
	advance(c, s, REG_RSI, 1);
	advance(c, s, REG_RDI, 1);
}

/* Host copies with the element size of the guest's, so that overlaps repeat alike. */
static void copy_up(void *to, const void *from, unsigned size, uint64_t n)
{
	switch (size) {
	case 1: __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory"); break;
	case 2: __asm__ volatile("rep movsw" : "+D"(to), "+S"(from), "+c"(n) : : "memory"); break;
	case 4: __asm__ volatile("rep movsl" : "+D"(to), "+S"(from), "+c"(n) : : "memory"); break;
	default: __asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(n) : : "memory"); break;
	}
}

static const struct soft_op *rep_movs(struct soft_cpu *c, const struct soft_op *op,
				      const struct string *s)
{
	uint64_t allowed = rep_allowed(c, s);

	if (!rep_begin(c, s, true, true))
		return op + 1;
	while (allowed) {
		uint64_t n = 0;

		if (s->flat && s->step == s->size) {
			uint64_t from = source(c, op, s), to = destination(c, op, s, true);
			void *hf, *ht;

			n = stretch(s, from, offset_of(c, s, REG_RSI), allowed);
			n = stretch(s, to, offset_of(c, s, REG_RDI), n);
			if (n) {
				hf = bulk(c, op, from, n * s->size, false);
				ht = bulk(c, op, to, n * s->size, true);
				if (hf && ht) {
					copy_up(ht, hf, s->size, n);
					advance(c, s, REG_RSI, n);
					advance(c, s, REG_RDI, n);
				} else {
					n = 0;
				}
			}
		}
		if (!n) {
			movs_once(c, op, s);
			n = 1;
		}
		rep_done(c, s, n);
		allowed -= n;
		if (interrupted(c, op))
			break;
	}
	return rep_end(c, op, rcx_zero(c, s));
}

const struct soft_op *op_movs(struct soft_cpu *c, const struct soft_op *op)
{
	struct string s = string_begin(c, op);

	if (op->flags & (OPF_REP | OPF_REPNE))
		return rep_movs(c, op, &s);
	movs_once(c, op, &s);
	return op + 1;
}

/* ---- STOS ------------------------------------------------------------------ */

static void stos_once(struct soft_cpu *c, const struct soft_op *op, const struct string *s)
{
	soft_store(c, op, destination(c, op, s, true), s->size,
		   soft_reg_get(c, SLOT(REG_RAX), s->size));
	advance(c, s, REG_RDI, 1);
}

static void fill_up(void *to, unsigned size, uint64_t v, uint64_t n)
{
	switch (size) {
	case 1: __asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(v) : "memory"); break;
	case 2: __asm__ volatile("rep stosw" : "+D"(to), "+c"(n) : "a"(v) : "memory"); break;
	case 4: __asm__ volatile("rep stosl" : "+D"(to), "+c"(n) : "a"(v) : "memory"); break;
	default: __asm__ volatile("rep stosq" : "+D"(to), "+c"(n) : "a"(v) : "memory"); break;
	}
}

const struct soft_op *op_stos(struct soft_cpu *c, const struct soft_op *op)
{
	struct string s = string_begin(c, op);
	uint64_t allowed;

	if (!(op->flags & (OPF_REP | OPF_REPNE))) {
		stos_once(c, op, &s);
		return op + 1;
	}
	if (!rep_begin(c, &s, false, true))
		return op + 1;
	allowed = rep_allowed(c, &s);
	while (allowed) {
		uint64_t n = 0;

		if (s.flat && s.step == s.size) {
			uint64_t to = destination(c, op, &s, true);
			void *host;

			n = stretch(&s, to, offset_of(c, &s, REG_RDI), allowed);
			host = n ? bulk(c, op, to, n * s.size, true) : NULL;
			if (host) {
				fill_up(host, s.size, c->r[REG_RAX], n);
				advance(c, &s, REG_RDI, n);
			} else {
				n = 0;
			}
		}
		if (!n) {
			stos_once(c, op, &s);
			n = 1;
		}
		rep_done(c, &s, n);
		allowed -= n;
		if (interrupted(c, op))
			break;
	}
	return rep_end(c, op, rcx_zero(c, &s));
}

/* ---- LODS ------------------------------------------------------------------ */

const struct soft_op *op_lods(struct soft_cpu *c, const struct soft_op *op)
{
	struct string s = string_begin(c, op);
	bool rep = op->flags & (OPF_REP | OPF_REPNE);
	uint64_t allowed = rep ? rep_allowed(c, &s) : 1;

	if (rep && !rep_begin(c, &s, false, false))
		return op + 1;
	while (allowed--) {
		uint64_t v = soft_load(c, op, source(c, op, &s), s.size);

		soft_reg_set(c, SLOT(REG_RAX), s.size, v);
		advance(c, &s, REG_RSI, 1);
		if (!rep)
			return op + 1;
		rep_done(c, &s, 1);
		if (interrupted(c, op))
			break;
	}
	return rep_end(c, op, rcx_zero(c, &s));
}

/* ---- SCAS and CMPS ------------------------------------------------------------ */

/* Flags of a - b as CMP of that size. */
static uint16_t compare(unsigned size, uint64_t a, uint64_t b)
{
	uint32_t f;

	switch (size) {
	case 1:
		__asm__("cmpb %b2, %b1" FLAGS_OUT : "=&a"(f) : "q"(a), "q"(b) : "cc");
		break;
	case 2:
		__asm__("cmpw %w2, %w1" FLAGS_OUT : "=&a"(f) : "r"(a), "r"(b) : "cc");
		break;
	case 4:
		__asm__("cmpl %k2, %k1" FLAGS_OUT : "=&a"(f) : "r"(a), "r"(b) : "cc");
		break;
	default:
		__asm__("cmpq %2, %1" FLAGS_OUT : "=&a"(f) : "r"(a), "r"(b) : "cc");
		break;
	}
	return (uint16_t)f;
}

/* REPE goes on while ZF is set, REPNE while it is clear. */
static bool condition_ends(uint16_t cc, const struct soft_op *op)
{
	return !(cc & CC_ZF) == !!(op->flags & OPF_REP);
}

static uint16_t scas_once(struct soft_cpu *c, const struct soft_op *op, const struct string *s)
{
	uint64_t v = soft_load(c, op, destination(c, op, s, false), s->size);

	advance(c, s, REG_RDI, 1);
	return compare(s->size, soft_reg_get(c, SLOT(REG_RAX), s->size), v);
}

/* Where both operands fault, it is the second that is told: as Intel's processors do. */
static uint16_t cmps_once(struct soft_cpu *c, const struct soft_op *op, const struct string *s)
{
	uint64_t b = soft_load(c, op, destination(c, op, s, false), s->size);
	uint64_t a = soft_load(c, op, source(c, op, s), s->size);

	advance(c, s, REG_RSI, 1);
	advance(c, s, REG_RDI, 1);
	return compare(s->size, a, b);
}

/*
 * The flags change when the last iteration is done: a fault on the way leaves
 * them as they were (SDM vol. 2, REP).
 */
static const struct soft_op *scan(struct soft_cpu *c, const struct soft_op *op,
				  uint16_t (*once)(struct soft_cpu *, const struct soft_op *,
						   const struct string *))
{
	struct string s = string_begin(c, op);
	bool rep = op->flags & (OPF_REP | OPF_REPNE);
	uint64_t allowed = rep ? rep_allowed(c, &s) : 1;
	bool ended = false;

	if (rep && !rep_begin(c, &s, false, false))
		return op + 1;
	while (allowed-- && !ended) {
		uint16_t cc = once(c, op, &s);

		if (!rep) {
			c->cc = cc;
			return op + 1;
		}
		rep_done(c, &s, 1);
		ended = condition_ends(cc, op) || rcx_zero(c, &s);
		if (ended)
			c->cc = cc;
		if (interrupted(c, op))
			break;
	}
	return rep_end(c, op, ended);
}

const struct soft_op *op_scas(struct soft_cpu *c, const struct soft_op *op)
{
	return scan(c, op, scas_once);
}

const struct soft_op *op_cmps(struct soft_cpu *c, const struct soft_op *op)
{
	return scan(c, op, cmps_once);
}
