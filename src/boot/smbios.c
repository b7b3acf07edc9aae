/* SMBIOS 3.0 structures (DMTF DSP0134): what the guest may know of its maker. */
#include <stdio.h>

#include "base/util.h"
#include "boot/tables.h"
#include "vm/vm.h"

#define MAX_STRINGS 8

/* One structure: the formatted part goes to the blob at once, strings after it. */
struct structure {
	struct blob *b;
	size_t at;
	const char *string[MAX_STRINGS];
	unsigned nstrings;
};

static struct structure begin(struct blob *b, uint8_t type, uint16_t handle)
{
	struct structure s = { .b = b, .at = b->len };

	blob_u8(b, type);
	blob_u8(b, 0);
	blob_u16(b, handle);
	return s;
}

/* Emits the number of a string, 0 for an empty one. */
static void put_string(struct structure *s, const char *text)
{
	if (!*text || s->nstrings == MAX_STRINGS) {
		blob_u8(s->b, 0);
		return;
	}
	s->string[s->nstrings++] = text;
	blob_u8(s->b, s->nstrings);
}

static void end(struct structure *s)
{
	if (!s->b->failed)
		s->b->data[s->at + 1] = s->b->len - s->at;
	for (unsigned i = 0; i < s->nstrings; i++)
		blob_put(s->b, s->string[i], strlen(s->string[i]) + 1);
	blob_zero(s->b, s->nstrings ? 1 : 2);
}

#define MAKER		"skep"
#define H_SYSTEM	0x0100
#define H_CHASSIS	0x0300
#define H_PROCESSOR	0x0400
#define H_ARRAY		0x1000
#define H_DIMM		0x1100
#define H_MAPPED	0x1300
#define NO_HANDLE	0xffff

static void bios(struct blob *b)
{
	struct structure s = begin(b, 0, 0);

	put_string(&s, MAKER);
	put_string(&s, "1");
	blob_u16(b, 0xe000);		/* segment of the BIOS area */
	put_string(&s, "01/01/2025");
	blob_u8(b, 1);			/* 128 KiB of it: (n + 1) x 64 */
	blob_u64(b, BIT(3));		/* no characteristics to tell */
	blob_u8(b, 0x01);		/* ACPI */
	blob_u8(b, 0x10);		/* a virtual machine */
	blob_u8(b, 1);
	blob_u8(b, 0);
	blob_u8(b, 0xff);		/* no embedded controller */
	blob_u8(b, 0xff);
	end(&s);
}

static void system_info(const struct vm *vm, struct blob *b)
{
	struct structure s = begin(b, 1, H_SYSTEM);
	const uint8_t *u = vm->uuid;
	/* Section 7.2.1: the first three fields are little-endian. */
	const uint8_t uuid[16] = { u[3], u[2], u[1], u[0], u[5], u[4], u[7], u[6],
				   u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15] };

	put_string(&s, MAKER);
	put_string(&s, "Virtual Machine (Q35)");
	put_string(&s, "1");
	put_string(&s, "");		/* serial number */
	blob_put(b, uuid, sizeof(uuid));
	blob_u8(b, 6);			/* woken by the power switch */
	put_string(&s, "");		/* SKU */
	put_string(&s, "Virtual Machine");
	end(&s);
}

static void chassis(const struct vm *vm, struct blob *b)
{
	struct structure s = begin(b, 3, H_CHASSIS);

	put_string(&s, MAKER);
	blob_u8(b, 1);			/* other */
	put_string(&s, "1");
	put_string(&s, "");
	put_string(&s, vm->name);	/* asset tag: what its owner calls it */
	blob_u8(b, 3);			/* boot-up, power, thermal: safe */
	blob_u8(b, 3);
	blob_u8(b, 3);
	blob_u8(b, 2);			/* security: unknown */
	blob_u32(b, 0);
	blob_u8(b, 0);			/* height, power cords */
	blob_u8(b, 0);
	blob_u8(b, 0);			/* contained elements */
	blob_u8(b, 0);
	put_string(&s, "");		/* SKU */
	end(&s);
}

static void processor(const struct vm *vm, struct blob *b, unsigned socket, unsigned cores,
		      unsigned threads)
{
	struct structure s = begin(b, 4, H_PROCESSOR + socket);
	uint16_t mhz = MIN(vm->clock.tsc_khz / 1000, 0xffffu);
	char name[16];

	snprintf(name, sizeof(name), "CPU %u", socket);
	put_string(&s, name);
	blob_u8(b, 3);			/* central processor */
	blob_u8(b, 1);			/* family: other */
	put_string(&s, MAKER);
	blob_u64(b, 0);			/* CPUID tells the rest */
	put_string(&s, "virtual");
	blob_u8(b, 0);
	blob_u16(b, 0);
	blob_u16(b, mhz);
	blob_u16(b, mhz);
	blob_u8(b, 0x41);		/* populated, enabled */
	blob_u8(b, 1);			/* upgrade: other */
	blob_u16(b, NO_HANDLE);		/* caches */
	blob_u16(b, NO_HANDLE);
	blob_u16(b, NO_HANDLE);
	put_string(&s, "");
	put_string(&s, "");
	put_string(&s, "");
	blob_u8(b, MIN(cores, 255u));
	blob_u8(b, MIN(cores, 255u));
	blob_u8(b, MIN(cores * threads, 255u));
	blob_u16(b, 0x0004);		/* 64-bit capable */
	blob_u16(b, 1);
	blob_u16(b, cores);
	blob_u16(b, cores);
	blob_u16(b, cores * threads);
	end(&s);
}

static void memory_array(const struct vm *vm, struct blob *b)
{
	struct structure s = begin(b, 16, H_ARRAY);

	blob_u8(b, 3);			/* on the system board */
	blob_u8(b, 3);			/* system memory */
	blob_u8(b, 3);			/* no error correction */
	blob_u32(b, 0x80000000);	/* see the extended capacity */
	blob_u16(b, 0xfffe);		/* no error information */
	blob_u16(b, 1);
	blob_u64(b, vm->memory.size);
	end(&s);
}

static void memory_device(const struct vm *vm, struct blob *b)
{
	struct structure s = begin(b, 17, H_DIMM);
	uint64_t mib = vm->memory.size / MiB;

	blob_u16(b, H_ARRAY);
	blob_u16(b, 0xfffe);
	blob_u16(b, 64);		/* widths */
	blob_u16(b, 64);
	blob_u16(b, mib < 0x7fff ? mib : 0x7fff);
	blob_u8(b, 9);			/* DIMM */
	blob_u8(b, 0);
	put_string(&s, "DIMM 0");
	put_string(&s, "");
	blob_u8(b, 7);			/* RAM */
	blob_u16(b, 0x0004);		/* of unknown detail */
	blob_u16(b, 0);
	put_string(&s, MAKER);
	put_string(&s, "");
	put_string(&s, "");
	put_string(&s, "");
	blob_u8(b, 0);
	blob_u32(b, mib < 0x7fff ? 0 : MIN(mib, (uint64_t)0x7fffffff));
	blob_u16(b, 0);			/* speed, voltages: unknown */
	blob_u16(b, 0);
	blob_u16(b, 0);
	blob_u16(b, 0);
	end(&s);
}

/* Section 7.20: the extended fields are in bytes, and the last one is included. */
static void mapped_address(const struct mem_region *r, struct blob *b, unsigned i)
{
	struct structure s = begin(b, 19, H_MAPPED + i);

	blob_u32(b, UINT32_MAX);
	blob_u32(b, UINT32_MAX);
	blob_u16(b, H_ARRAY);
	blob_u8(b, 1);
	blob_u64(b, r->gpa);
	blob_u64(b, r->gpa + r->size - 1);
	end(&s);
}

void smbios_build(const struct vm *vm, struct blob *t, struct blob *anchor)
{
	struct config_node *root = vm->config ? config_root(vm->config) : NULL;
	unsigned cores = root ? config_uint(root, "cores") : 1;
	unsigned threads = root ? config_uint(root, "threads") : 1;
	struct structure s;

	cores = MAX(cores, 1u);
	threads = MAX(threads, 1u);
	bios(t);
	system_info(vm, t);
	chassis(vm, t);
	for (unsigned i = 0; i * cores * threads < vm->ncpus; i++)
		processor(vm, t, i, cores, threads);
	memory_array(vm, t);
	memory_device(vm, t);
	for (unsigned i = 0; i < vm->memory.nram; i++)
		mapped_address(&vm->memory.ram[i], t, i);
	s = begin(t, 32, 0x2000);	/* boot status: no errors */
	blob_zero(t, 7);
	end(&s);
	s = begin(t, 127, 0x7f00);
	end(&s);

	/* Section 5.2.2: 64-bit entry point. */
	blob_put(anchor, "_SM3_", 5);
	blob_u8(anchor, 0);		/* checksum */
	blob_u8(anchor, 24);
	blob_u8(anchor, 3);		/* 3.0 */
	blob_u8(anchor, 0);
	blob_u8(anchor, 0);
	blob_u8(anchor, 1);
	blob_u8(anchor, 0);
	blob_u32(anchor, t->len);
	blob_u64(anchor, 0);
}
