/*
 * VM Generation ID (Microsoft, "Virtual Machine Generation ID"): 128 bits in a page of guest RAM
 * that change whenever the machine goes on from a past that another one may go on from too, so
 * that the guest reseeds its random numbers and gives up what must be unique.  Device lock held.
 */
#ifndef SKEP_CLOCK_VMGENID_H
#define SKEP_CLOCK_VMGENID_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct vm;
struct vmgenid;
struct device_type;
struct state_record;

#define VMGENID_OFFSET	40	/* of the id in its page: firmware must not take it for a table */
#define VMGENID_GPE	5	/* \_GPE._E05 */

extern const struct device_type vmgenid_type;
extern const struct state_record vmgenid_record;

/* After fw_cfg; the VM's list owns it. */
struct vmgenid *vmgenid_create(struct vm *vm, struct skep_error *e);
/* The machine's, or NULL. */
struct vmgenid *vmgenid_of(const struct vm *vm);

/*
 * The machine was restored, and is to know it: a new generation id and a disruption of VMClock, both
 * notified.  Under a seed the same state gives the same id, but for clones, whose names go into
 * it.  After the state was committed, before any vCPU runs.
 */
void vm_generation_renew(struct vm *vm, bool clone);
/* It was restored and is not to know (restore --exact). */
void vm_generation_keep(struct vm *vm);

#endif
