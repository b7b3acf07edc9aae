/*
 * VMClock (UAPI.13, "VMClock"; struct vmclock_abi in Linux): a page in which the guest reads how its
 * TSC relates to UTC, and that this relation was broken (disruption marker).  Device lock held.
 *
 * With clock=realtime the pair of TSC and UTC is the host's, taken whenever the machine starts,
 * resumes or is restored, and when somebody sets the host's clock.  The status says whether
 * the host's kernel takes its clock for synchronised.  A virtual clock knows nothing of UTC:
 * counter and status are "invalid" and "unknown", and only the markers mean something.
 */
#ifndef SKEP_CLOCK_VMCLOCK_H
#define SKEP_CLOCK_VMCLOCK_H

#include <stdint.h>

#include "base/error.h"

struct vm;
struct vmclock;
struct device_type;
struct state_record;

/* Offsets of the fields, little-endian; and what stands in them. */
#define VMCLOCK_MAGIC		0x00	/* u32 */
#define VMCLOCK_SIZE		0x04	/* u32: of the region */
#define VMCLOCK_VERSION		0x08	/* u16: 1 */
#define VMCLOCK_COUNTER_ID	0x0a	/* u8 */
#define VMCLOCK_TIME_TYPE	0x0b	/* u8: 0 is UTC */
#define VMCLOCK_SEQ_COUNT	0x0c	/* u32: odd while what follows changes */
#define VMCLOCK_DISRUPTION	0x10	/* u64 */
#define VMCLOCK_FLAGS		0x18	/* u64 */
#define VMCLOCK_STATUS		0x22	/* u8 */
#define VMCLOCK_TAI_OFFSET	0x24	/* s16, seconds */
#define VMCLOCK_LEAP		0x26	/* u8 */
#define VMCLOCK_PERIOD_SHIFT	0x27	/* u8 */
#define VMCLOCK_COUNTER		0x28	/* u64: the TSC at the time below */
#define VMCLOCK_PERIOD		0x30	/* u64: of a tick, s / 2^(64 + shift) */
#define VMCLOCK_PERIOD_MAXERROR	0x40	/* u64: same unit */
#define VMCLOCK_TIME_SEC	0x48	/* u64 */
#define VMCLOCK_TIME_FRAC	0x50	/* u64: s / 2^64 */
#define VMCLOCK_TIME_ESTERROR	0x58	/* u64, ns */
#define VMCLOCK_TIME_MAXERROR	0x60	/* u64, ns */
#define VMCLOCK_GENERATION	0x68	/* u64: changes with the generation id */
#define VMCLOCK_BYTES		0x70

#define VMCLOCK_MAGIC_VALUE	0x4b4c4356u	/* "VCLK" */
#define VMCLOCK_COUNTER_TSC	1
#define VMCLOCK_COUNTER_INVALID	0xff

#define VMCLOCK_STATUS_UNKNOWN		0
#define VMCLOCK_STATUS_SYNCHRONIZED	2

#define VMCLOCK_FLAG_TAI_OFFSET		(1u << 0)
#define VMCLOCK_FLAG_PERIOD_MAXERROR	(1u << 4)
#define VMCLOCK_FLAG_TIME_ESTERROR	(1u << 5)
#define VMCLOCK_FLAG_TIME_MAXERROR	(1u << 6)
#define VMCLOCK_FLAG_GENERATION		(1u << 8)
#define VMCLOCK_FLAG_NOTIFICATION	(1u << 9)

#define VMCLOCK_GPE	8	/* \_GPE._E08 */

extern const struct device_type vmclock_type;
extern const struct state_record vmclock_record;

/* After fw_cfg; the VM's list owns it. */
struct vmclock *vmclock_create(struct vm *vm, struct skep_error *e);
/* The machine's, or NULL. */
struct vmclock *vmclock_of(const struct vm *vm);

/* The machine was restored: new markers. Before any vCPU runs. */
void vmclock_renew(struct vmclock *c, uint64_t disruption, uint64_t generation);
/* It was, and is not to see it: the page stays as it is when the machine resumes next. */
void vmclock_keep(struct vmclock *c);

#endif
