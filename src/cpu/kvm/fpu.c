/*
 * x87, SSE and AVX state.  The kernel's XSAVE area is taken apart component by component, as the SDM
 * lays it out (vol. 1, 13.4); what the record has no place for is not the guest's to use.
 */
#include "cpu/kvm/kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "cpu/model.h"

#define FCW		0
#define FSW		2
#define FTW		4
#define FOP		6
#define FIP		8
#define FDP		16
#define MXCSR		24
#define ST		32
#define XMM		160
#define XSTATE_BV	512
#define YMMH		576

/* ST(0) is what TOP, bits 13:11 of the status word, says. */
static unsigned physical(uint16_t fsw, unsigned i)
{
	return (i + (fsw >> 11)) & 7;
}

static void get_x87(struct cpu_fpu *f, const uint8_t *area)
{
	f->fcw = load16(area + FCW);
	f->fsw = load16(area + FSW);
	f->ftw = area[FTW];
	for (unsigned i = 0; i < 8; i++) {
		uint8_t *st = f->st[physical(f->fsw, i)];

		memset(st, 0, sizeof(f->st[0]));
		memcpy(st, area + ST + 16 * i, 10);
	}
	/* The CPU models have no segments here.  Some processors store the rest with an exception only. */
	f->fcs = f->fds = 0;
	f->fop = load16(area + FOP) & 0x7ff;
	f->fip = load64(area + FIP);
	f->fdp = load64(area + FDP);
}

static void put_x87(const struct cpu_fpu *f, uint8_t *area)
{
	store16(area + FCW, f->fcw);
	store16(area + FSW, f->fsw);
	area[FTW] = f->ftw;
	store16(area + FOP, f->fop);
	store64(area + FIP, f->fip);
	store64(area + FDP, f->fdp);
	for (unsigned i = 0; i < 8; i++)
		memcpy(area + ST + 16 * i, f->st[physical(f->fsw, i)], 10);
}

static uint8_t *area_alloc(struct kvm_cpu *k, struct skep_error *e)
{
	uint8_t *area = calloc(1, k->m->xsave_size);

	if (!area)
		skep_fail(e, ENOMEM, "no memory for the state of processor %u", k->v->index);
	return area;
}

static int read_area(struct kvm_cpu *k, uint8_t *area)
{
	return kvm_call(k->fd, k->m->xsave_size > sizeof(struct kvm_xsave) ? KVM_GET_XSAVE2 :
			KVM_GET_XSAVE, area);
}

int kvm_fpu_get(struct kvm_cpu *k, struct cpu_arch_state *s, struct skep_error *e)
{
	static const uint8_t init[ST] = { [FCW] = 0x7f, [FCW + 1] = 0x03 };
	uint8_t *area = area_alloc(k, e);
	struct cpu_fpu *f = &s->fpu;
	uint64_t valid;
	int err;

	if (!area)
		return -ENOMEM;
	err = read_area(k, area);
	if (err < 0) {
		free(area);
		return kvm_fail(e, err, "KVM_GET_XSAVE");
	}
	valid = load64(area + XSTATE_BV);
	/* What is in its initial configuration may not be in the area. */
	if (!(valid & XCR0_X87)) {
		memcpy(area, init, MXCSR);
		memset(area + ST, 0, XMM - ST);
	}
	get_x87(f, area);
	f->mxcsr = load32(area + MXCSR);
	if (valid & XCR0_SSE)
		memcpy(f->xmm, area + XMM, sizeof(f->xmm));
	if (valid & XCR0_AVX && k->m->model->xcr0 & XCR0_AVX)
		memcpy(f->ymmh, area + YMMH, sizeof(f->ymmh));
	free(area);
	return 0;
}

int kvm_fpu_set(struct kvm_cpu *k, const struct cpu_arch_state *s, struct skep_error *e)
{
	uint8_t *area = area_alloc(k, e);
	bool avx = k->m->model->xcr0 & XCR0_AVX;
	int err;

	if (!area)
		return -ENOMEM;
	put_x87(&s->fpu, area);
	store32(area + MXCSR, s->fpu.mxcsr);
	memcpy(area + XMM, s->fpu.xmm, sizeof(s->fpu.xmm));
	if (avx)
		memcpy(area + YMMH, s->fpu.ymmh, sizeof(s->fpu.ymmh));
	store64(area + XSTATE_BV, XCR0_X87 | XCR0_SSE | (avx ? XCR0_AVX : 0));
	err = kvm_call(k->fd, KVM_SET_XSAVE, area);
	free(area);
	return err < 0 ? kvm_fail(e, err, "KVM_SET_XSAVE") : 0;
}
