/* Kernels of every format: loaded right, or refused with a sentence. */
#include "vm_helper.h"

#include <elf.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "boot/boot.h"
#include "boot/fwcfg.h"
#include "boot/place.h"
#include "pci/pci.h"

static char dir[] = "/tmp/skep-boot-XXXXXX";
static char kernel_path[64], initrd_path[64];

/* ---- A machine with a board that keeps the processor's state --------------- */

static struct cpu_arch_state cpu;

static void get_state(struct vcpu *v, struct cpu_arch_state *s) { *s = cpu; }
static int set_state(struct vcpu *v, const struct cpu_arch_state *s, struct skep_error *e)
{
	cpu = *s;
	return 0;
}

static struct vm *make_vm(uint64_t ram, const char *initrd, const char *cmdline)
{
	struct vm_core_options o = { .ram = ram, .seeded = true };
	struct skep_error e = { .text = "" };
	static struct vcpu_ops ops;
	struct vm *vm;

	clock_init(&o.clock, CLOCK_MODE_VIRTUAL);
	vm = test_vm_options(&o);
	ops = fake_ops;
	ops.get_state = get_state;
	ops.set_state = set_state;
	vm->vcpus[0]->ops = &ops;
	memset(&cpu, 0, sizeof(cpu));
	vm->config = config_create();
	assert_int_equal(config_set(vm->config, "boot.kernel", kernel_path, "test", &e), 0);
	if (initrd)
		assert_int_equal(config_set(vm->config, "boot.initrd", initrd, "test", &e), 0);
	if (cmdline)
		assert_int_equal(config_set(vm->config, "boot.cmdline", cmdline, "test", &e), 0);
	if (config_freeze(vm->config, &e))
		fail_msg("%s", e.text);
	assert_non_null(pci_create(vm, &e));
	assert_non_null(fwcfg_create(vm, &e));
	for (struct device *d = vm->devices; d; d = d->next)
		d->type->reset(d);
	return vm;
}

static void free_vm(struct vm *vm)
{
	struct config *c = vm->config;

	boot_unload(vm);
	test_vm_free(vm);
	config_destroy(c);
}

/*
 * A new file each time: ext4 writes one that was made empty and filled again to the disk at once,
 * and thousands are saved here.
 */
static void save(const char *path, const void *data, size_t len)
{
	int fd;

	unlink(path);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, len), len);
	close(fd);
}

/* Loads and places; the sentence is in *e when it is refused. */
static int boot(struct vm *vm, struct skep_error *e)
{
	int r;

	e->text[0] = '\0';
	r = boot_load(vm, e);
	if (!r)
		r = boot_place(vm, e);
	if (r) {
		assert_true(r < 0);
		if (strlen(e->text) < 20)
			fail_msg("no sentence: '%s'", e->text);
		assert_true(e->text[strlen(e->text) - 1] != '.');
		assert_null(strchr(e->text, '\n'));
	} else {
		assert_int_equal(e->text[0], '\0');
	}
	return r;
}

static void boots_in(uint64_t ram, struct vm **vm, const char *initrd, const char *cmdline)
{
	struct skep_error e;

	*vm = make_vm(ram, initrd, cmdline);
	if (boot(*vm, &e))
		fail_msg("%s", e.text);
}

static void refused_in(uint64_t ram, const char *initrd, const char *cmdline, const char *word,
		       const char *word2)
{
	struct vm *vm = make_vm(ram, initrd, cmdline);
	struct skep_error e;

	if (!boot(vm, &e))
		fail_msg("not refused: %s", word);
	if (!strstr(e.text, word) || !strstr(e.text, word2))
		fail_msg("'%s' or '%s' is not in: %s", word, word2, e.text);
	free_vm(vm);
}

/* An image that is damaged somewhere: it boots or it does not, with a sentence. */
static bool survives(struct vm *vm)
{
	struct skep_error e;
	bool booted = !boot(vm, &e);

	boot_unload(vm);
	return booted;
}

static uint64_t peek(struct vm *vm, uint64_t gpa, unsigned bytes)
{
	uint64_t v = 0;

	assert_int_equal(dma_read(&vm->memory, gpa, &v, bytes), 0);
	return v;
}

static void assert_memory(struct vm *vm, uint64_t gpa, const void *data, size_t len)
{
	uint8_t *buf = malloc(len + 1);

	assert_int_equal(dma_read(&vm->memory, gpa, buf, len), 0);
	assert_memory_equal(buf, data, len);
	free(buf);
}

static int group_setup(void **state)
{
	assert_non_null(mkdtemp(dir));
	snprintf(kernel_path, sizeof(kernel_path), "%s/kernel", dir);
	snprintf(initrd_path, sizeof(initrd_path), "%s/initrd", dir);
	return 0;
}

static int group_teardown(void **state)
{
	unlink(kernel_path);
	unlink(initrd_path);
	return rmdir(dir);
}

/* ---- Linux ------------------------------------------------------------------ */

#define SETUP	1024
#define PAYLOAD	4096

static uint8_t bzimage[SETUP + PAYLOAD];

static void make_bzimage(void)
{
	uint8_t *h = bzimage;

	memset(bzimage, 0, sizeof(bzimage));
	for (unsigned i = SETUP; i < sizeof(bzimage); i++)
		bzimage[i] = i * 7;
	h[0x1f1] = SETUP / 512 - 1;
	store32(h + 0x1f4, PAYLOAD / 16);
	store16(h + 0x1fe, 0xaa55);
	store16(h + 0x200, 0x66eb);
	memcpy(h + 0x202, "HdrS", 4);
	store16(h + 0x206, 0x20f);
	h[0x211] = 1;
	store32(h + 0x22c, 0x7fffffff);
	store32(h + 0x230, 0x200000);
	h[0x234] = 1;
	store16(h + 0x236, 1);
	store32(h + 0x238, 255);
	store64(h + 0x258, 0x1000000);
	store32(h + 0x260, 0x10000);
}

static void save_kernel(void) { save(kernel_path, bzimage, sizeof(bzimage)); }

static void make_initrd(void)
{
	static const char member[] =
		"070701" "00000001" "000081a4" "00000000" "00000000" "00000001" "00000000"
		"00000005" "00000000" "00000000" "00000000" "00000000" "00000002" "00000000"
		"a\0hello\0\0\0";
	static const char trailer[] =
		"070701" "00000000" "00000000" "00000000" "00000000" "00000001" "00000000"
		"00000000" "00000000" "00000000" "00000000" "00000000" "0000000b" "00000000"
		"TRAILER!!!\0\0\0";
	uint8_t cpio[512] = { 0 };

	memcpy(cpio, member, 120);
	memcpy(cpio + 120, trailer, 124);
	save(initrd_path, cpio, sizeof(cpio));
}

static void check_long_mode(struct vm *vm)
{
	uint64_t pml4, pdpt, gdt = cpu.gdtr.base;

	assert_int_equal(cpu.cr0 & (CR0_PE | CR0_PG), CR0_PE | CR0_PG);
	assert_int_equal(cpu.cr4 & CR4_PAE, CR4_PAE);
	assert_int_equal(cpu.efer, EFER_LME | EFER_LMA);
	assert_int_equal(cpu.rflags, 2);
	assert_int_equal(cpu.seg[SEG_CS].selector, 0x10);
	assert_int_equal(cpu.seg[SEG_CS].attr, 0xa09b);
	assert_int_equal(cpu.seg[SEG_DS].selector, 0x18);
	assert_int_equal(peek(vm, gdt + 0x10, 8), 0x00af9b000000ffff);
	assert_int_equal(peek(vm, gdt + 0x18, 8), 0x00cf93000000ffff);
	pml4 = peek(vm, cpu.cr3, 8);
	for (unsigned g = 0; g < 4; g++) {
		pdpt = peek(vm, (pml4 & ~0xfffull) + 8 * g, 8);
		assert_int_equal(peek(vm, (pdpt & ~0xfffull) + 8 * 511, 8),
				 (g * GiB + 511 * 2 * MiB) | 0x83);
	}
	assert_int_equal(peek(vm, (pml4 & ~0xfffull) + 8 * 4, 8), 0);
}

static void linux_boots(void **state)
{
	struct vm *vm;
	uint64_t zp, initrd, seed;

	make_bzimage();
	save_kernel();
	make_initrd();
	boots_in(64 * MiB, &vm, initrd_path, "console=ttyS0 quiet");
	assert_int_equal(cpu.rip, 0x1000200);
	assert_memory(vm, 0x1000000, bzimage + SETUP, PAYLOAD);
	check_long_mode(vm);
	zp = cpu.gpr[REG_RSI];
	assert_memory(vm, zp + 0x202, "HdrS", 4);
	assert_int_equal(peek(vm, zp + 0x210, 1), 0xff);
	assert_memory(vm, peek(vm, zp + 0x228, 4), "console=ttyS0 quiet", 20);
	initrd = peek(vm, zp + 0x218, 4);
	assert_int_equal(initrd, 64 * MiB - 4096);
	assert_int_equal(peek(vm, zp + 0x21c, 4), 512);
	assert_memory(vm, initrd, "070701", 6);
	assert_memory(vm, peek(vm, zp + 0x70, 8), "RSD PTR ", 8);
	seed = peek(vm, zp + 0x250, 8);
	assert_int_equal(peek(vm, seed, 8), 0);
	assert_int_equal(peek(vm, seed + 8, 4), 9);
	assert_int_equal(peek(vm, seed + 12, 4), 32);
	assert_int_not_equal(peek(vm, seed + 16, 8), peek(vm, seed + 24, 8));
	/* What firmware leaves behind. */
	assert_int_equal(vm->memory.pam[12], PAM_READ | PAM_WRITE);
	assert_int_equal(bus_read(&vm->mmio, 0xb0000000, 4), 0x29c08086);
	free_vm(vm);
}

static void linux_memory_map(void **state)
{
	struct vm *vm;
	uint64_t zp, ram = 0, end = 0;
	unsigned n;

	make_bzimage();
	save_kernel();
	boots_in(64 * MiB, &vm, NULL, NULL);
	zp = cpu.gpr[REG_RSI];
	n = peek(vm, zp + 0x1e8, 1);
	assert_in_range(n, 3, E820_MAX);
	for (unsigned i = 0; i < n; i++) {
		uint64_t entry = zp + 0x2d0 + 20 * i, base = peek(vm, entry, 8);

		assert_true(base >= end);
		end = base + peek(vm, entry + 8, 8);
		if (peek(vm, entry + 16, 4) == E820_RAM)
			ram += end - base;
	}
	assert_int_equal(ram, 64 * MiB - (1 * MiB - EBDA_BASE));
	/* All that the kernel is told lies in RAM that it may take over later. */
	assert_true(zp < EBDA_BASE && cpu.cr3 < EBDA_BASE && cpu.gdtr.base < EBDA_BASE);
	assert_int_equal(peek(vm, zp + 0x21c, 4), 0);
	free_vm(vm);
}

static void linux_boots_again_after_reset(void **state)
{
	struct skep_error e;
	struct vm *vm;

	make_bzimage();
	save_kernel();
	boots_in(64 * MiB, &vm, NULL, NULL);
	dma_zero(&vm->memory, 0, 64 * MiB);
	for (struct device *d = vm->devices; d; d = d->next)
		d->type->reset(d);
	memset(&cpu, 0, sizeof(cpu));
	assert_int_equal(boot_place(vm, &e), 0);
	assert_int_equal(cpu.rip, 0x1000200);
	assert_memory(vm, 0x1000000, bzimage + SETUP, PAYLOAD);
	/* The file shrinks while the machine runs. */
	assert_int_equal(truncate(kernel_path, 2000), 0);
	assert_true(boot_place(vm, &e) < 0);
	assert_non_null(strstr(e.text, "shorter"));
	free_vm(vm);
}

static void linux_moves_if_it_must(void **state)
{
	struct vm *vm;

	make_bzimage();
	store64(bzimage + 0x258, 0x3000000);
	store32(bzimage + 0x260, 0x800000);
	save_kernel();
	boots_in(16 * MiB, &vm, NULL, NULL);
	assert_int_equal(cpu.rip, 0x200200);
	free_vm(vm);
	bzimage[0x234] = 0;
	save_kernel();
	refused_in(16 * MiB, NULL, NULL, "memory.size", "56 MiB");
}

static void linux_needs_room(void **state)
{
	char line[300];

	make_bzimage();
	store32(bzimage + 0x260, 0x3000000);
	save_kernel();
	refused_in(32 * MiB, NULL, NULL, "50 MiB", "has 32");
	make_bzimage();
	save_kernel();
	memset(line, 'x', sizeof(line));
	line[256] = 0;
	refused_in(64 * MiB, NULL, line, "256 characters", "255");
	/* An initrd larger than what is left. */
	make_initrd();
	assert_int_equal(truncate(initrd_path, 63 * MiB), 0);
	refused_in(64 * MiB, initrd_path, NULL, initrd_path, "does not fit");
	store32(bzimage + 0x22c, 0x100ffff);
	save_kernel();
	make_initrd();
	refused_in(64 * MiB, initrd_path, NULL, "boot.initrd", "does not fit");
}

static void linux_header_errors(void **state)
{
	static const struct { unsigned at; uint32_t value; const char *word; } t[] = {
		{ 0x206, 0x20b, "2.11" },
		{ 0x1f4, PAYLOAD / 16 + 1, "truncated" },
		{ 0x1f4, 0x0fffffff, "truncated" },
		{ 0x1f4, 0, "no kernel" },
		{ 0x248, 0x7fffffff, "compressed part" },
		{ 0x24c, 0x7fffffff, "compressed part" },
		{ 0x260, 16, "memory" },
		{ 0x230, 0x200001, "alignment" },
		{ 0x230, 0, "alignment" },
		{ 0x258, 0, "impossible address" },
		{ 0x25c, 1, "impossible address" },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		make_bzimage();
		store32(bzimage + t[i].at, t[i].value);
		save_kernel();
		refused_in(64 * MiB, NULL, NULL, t[i].word, kernel_path);
	}
	make_bzimage();
	bzimage[0x201] = 0;
	save_kernel();
	refused_in(64 * MiB, NULL, NULL, "impossible length", kernel_path);
	make_bzimage();
	store16(bzimage + 0x236, 0);
	save_kernel();
	refused_in(64 * MiB, NULL, NULL, "32-bit", "amd64");
	make_bzimage();
	bzimage[0x211] = 0;
	save_kernel();
	refused_in(64 * MiB, NULL, NULL, "zImage", kernel_path);
}

/* ---- ELF -------------------------------------------------------------------- */

static uint8_t elf[4096];

struct layout { Elf64_Ehdr *eh; Elf64_Phdr *load, *note; };

/* 64-bit, one segment at 2 MiB, a PVH note. */
static struct layout make_vmlinux(void)
{
	struct layout l = { (void *)elf, (void *)(elf + 64), (void *)(elf + 64 + 56) };
	static const uint8_t note[] = { 4, 0, 0, 0, 4, 0, 0, 0, 18, 0, 0, 0, 'X', 'e', 'n', 0,
					0x34, 0x00, 0x20, 0x00 };

	memset(elf, 0, sizeof(elf));
	memcpy(l.eh->e_ident, ELFMAG "\2\1\1", 7);
	l.eh->e_type = ET_EXEC;
	l.eh->e_machine = EM_X86_64;
	l.eh->e_version = 1;
	l.eh->e_phoff = 64;
	l.eh->e_ehsize = 64;
	l.eh->e_phentsize = 56;
	l.eh->e_phnum = 2;
	l.load[0] = (Elf64_Phdr){ .p_type = PT_LOAD, .p_offset = 0x800, .p_filesz = 0x800,
		.p_vaddr = 0xffffffff80200000, .p_paddr = 0x200000, .p_memsz = 0x3000 };
	l.load[1] = (Elf64_Phdr){ .p_type = PT_NOTE, .p_offset = 0x400, .p_filesz = sizeof(note),
		.p_memsz = sizeof(note) };
	memcpy(elf + 0x400, note, sizeof(note));
	for (unsigned i = 0x800; i < sizeof(elf); i++)
		elf[i] = i * 3;
	return l;
}

static void save_elf(void) { save(kernel_path, elf, sizeof(elf)); }

static void check_protected_mode(uint32_t eip)
{
	assert_int_equal(cpu.rip, eip);
	assert_int_equal(cpu.cr0, CR0_PE | CR0_ET);
	assert_int_equal(cpu.cr4, 0);
	assert_int_equal(cpu.efer, 0);
	assert_int_equal(cpu.rflags, 2);
	assert_int_equal(cpu.seg[SEG_CS].attr, 0xc09b);
	assert_int_equal(cpu.seg[SEG_SS].attr, 0xc093);
	assert_int_equal(cpu.seg[SEG_SS].limit, 0xffffffff);
}

static void pvh_boots(void **state)
{
	struct vm *vm;
	uint64_t info, map, module;

	make_vmlinux();
	save_elf();
	make_initrd();
	boots_in(64 * MiB, &vm, initrd_path, "hello");
	check_protected_mode(0x200034);
	assert_memory(vm, 0x200000, elf + 0x800, 0x800);
	info = cpu.gpr[REG_RBX];
	assert_int_equal(peek(vm, info, 4), 0x336ec578);
	assert_int_equal(peek(vm, info + 4, 4), 1);
	assert_int_equal(peek(vm, info + 12, 4), 1);
	module = peek(vm, info + 16, 8);
	assert_int_equal(peek(vm, module + 8, 8), 512);
	assert_memory(vm, peek(vm, module, 8), "070701", 6);
	assert_memory(vm, peek(vm, info + 24, 8), "hello", 6);
	assert_memory(vm, peek(vm, info + 32, 8), "RSD PTR ", 8);
	map = peek(vm, info + 40, 8);
	assert_in_range(peek(vm, info + 48, 4), 3, E820_MAX);
	assert_int_equal(peek(vm, map + 8, 8), EBDA_BASE);
	assert_int_equal(peek(vm, map + 16, 4), E820_RAM);
	free_vm(vm);
}

static void bss_is_cleared_at_every_boot(void **state)
{
	struct skep_error e;
	struct vm *vm;

	make_vmlinux();
	save_elf();
	boots_in(64 * MiB, &vm, NULL, NULL);
	dma_write(&vm->memory, 0x200800, "dirt", 4);
	assert_int_equal(boot_place(vm, &e), 0);
	assert_int_equal(peek(vm, 0x200800, 4), 0);
	free_vm(vm);
}

static void elf_errors(void **state)
{
	struct layout l = make_vmlinux();

	l.eh->e_machine = EM_AARCH64;
	save_elf();
	refused_in(64 * MiB, NULL, NULL, "another processor", kernel_path);
	l = make_vmlinux();
	l.load[0].p_filesz = 0x900;
	save_elf();
	refused_in(64 * MiB, NULL, NULL, "truncated", kernel_path);
	l = make_vmlinux();
	l.load[0].p_memsz = 1;
	save_elf();
	refused_in(64 * MiB, NULL, NULL, "damaged", kernel_path);
	l = make_vmlinux();
	l.load[0].p_memsz = UINT64_MAX;
	save_elf();
	refused_in(64 * MiB, NULL, NULL, "wraps", kernel_path);
	l = make_vmlinux();
	l.load[0].p_paddr = 0x9f000;
	save_elf();
	refused_in(64 * MiB, NULL, NULL, "no free RAM", kernel_path);
	l = make_vmlinux();
	l.load[0].p_memsz = 100 * MiB;
	save_elf();
	refused_in(64 * MiB, NULL, NULL, "102 MiB", "memory.size");
	l = make_vmlinux();
	l.load[1] = l.load[0];
	save_elf();
	refused_in(64 * MiB, NULL, NULL, "neither", kernel_path);
	l = make_vmlinux();
	l.load[1].p_type = PT_NULL;
	save_elf();
	refused_in(64 * MiB, NULL, NULL, "neither a PVH note", "multiboot");
	l = make_vmlinux();
	l.eh->e_type = ET_REL;
	save_elf();
	refused_in(64 * MiB, NULL, NULL, "not an executable", kernel_path);
}

/* ---- Multiboot -------------------------------------------------------------- */

static void put_header(uint8_t *p, uint32_t flags)
{
	store32(p, 0x1badb002);
	store32(p + 4, flags);
	store32(p + 8, -(0x1badb002 + flags));
}

static void check_mbi(struct vm *vm, uint64_t mbi)
{
	uint64_t module = peek(vm, mbi + 24, 4), map = peek(vm, mbi + 48, 4);
	char line[128];

	assert_int_equal(cpu.gpr[REG_RAX], 0x2badb002);
	assert_int_equal(peek(vm, mbi, 4), 0x24d);
	assert_int_equal(peek(vm, mbi + 4, 4), EBDA_BASE / 1024);
	assert_int_equal(peek(vm, mbi + 8, 4), 63 * 1024);
	snprintf(line, sizeof(line), "%s a b", kernel_path);
	assert_memory(vm, peek(vm, mbi + 16, 4), line, strlen(line) + 1);
	assert_int_equal(peek(vm, mbi + 20, 4), 1);
	assert_int_equal(peek(vm, module, 4) % 4096, 0);
	assert_int_equal(peek(vm, module + 4, 4) - peek(vm, module, 4), 512);
	assert_memory(vm, peek(vm, module, 4), "070701", 6);
	assert_memory(vm, peek(vm, mbi + 64, 4), "skep", 5);
	assert_int_equal(peek(vm, map, 4), 20);
	assert_int_equal(peek(vm, map + 12, 8), EBDA_BASE);
	assert_int_equal(peek(vm, mbi + 44, 4) % 24, 0);
}

static void multiboot_elf_boots(void **state)
{
	struct layout l = make_vmlinux();
	struct vm *vm;

	l.load[1].p_type = PT_NULL;
	l.load[0].p_offset = 0x200;
	l.load[0].p_filesz = 0xe00;
	l.eh->e_entry = 0xffffffff80200010;	/* virtual */
	put_header(elf + 0x200, 3);
	save_elf();
	make_initrd();
	boots_in(64 * MiB, &vm, initrd_path, "a b");
	check_protected_mode(0x200010);
	assert_memory(vm, 0x200000, elf + 0x200, 0xe00);
	check_mbi(vm, cpu.gpr[REG_RBX]);
	free_vm(vm);
}

static void multiboot_elf32_boots(void **state)
{
	Elf32_Ehdr *eh = (void *)elf;
	Elf32_Phdr *ph = (void *)(elf + 52);
	struct vm *vm;

	memset(elf, 0, sizeof(elf));
	memcpy(eh->e_ident, ELFMAG "\1\1\1", 7);
	eh->e_type = ET_EXEC;
	eh->e_machine = EM_386;
	eh->e_entry = 0x100020;
	eh->e_phoff = 52;
	eh->e_phentsize = 32;
	eh->e_phnum = 1;
	*ph = (Elf32_Phdr){ .p_type = PT_LOAD, .p_offset = 0x100, .p_vaddr = 0x100000,
			    .p_paddr = 0x100000, .p_filesz = 0xf00, .p_memsz = 0x2000 };
	put_header(elf + 0x100, 0);
	save_elf();
	make_initrd();
	boots_in(64 * MiB, &vm, initrd_path, "a b");
	check_protected_mode(0x100020);
	check_mbi(vm, cpu.gpr[REG_RBX]);
	free_vm(vm);
}

static void put_addresses(uint8_t *p, uint32_t header, uint32_t load, uint32_t load_end,
			  uint32_t bss_end, uint32_t entry)
{
	put_header(p, 0x10003);
	store32(p + 12, header);
	store32(p + 16, load);
	store32(p + 20, load_end);
	store32(p + 24, bss_end);
	store32(p + 28, entry);
}

static void multiboot_addresses(void **state)
{
	static const struct { uint32_t a[5]; const char *word; } bad[] = {
		{ { 0x100080, 0x200000, 0, 0, 0x100000 }, "load address" },
		{ { 0x100080, 0x0ff000, 0, 0, 0x100000 }, "load address" },
		{ { 0x100080, 0x100000, 0x0fffff, 0, 0x100000 }, "more than the file" },
		{ { 0x100080, 0x100000, 0x101001, 0, 0x100000 }, "more than the file" },
		{ { 0x100080, 0x100000, 0, 0, 0x101000 }, "entry point" },
		{ { 0x100080, 0x100000, 0, 0, 0x0fffff }, "entry point" },
		{ { 0x100080, 0x100000, 0, 0x7000000, 0x100000 }, "112 MiB" },
		{ { 0x0a0080, 0x0a0000, 0, 0, 0x0a0000 }, "no free RAM" },
		{ { 0xffffff80, 0xffffff00, 0, 0, 0xffffff00 }, "below 4 GiB" },
	};
	struct vm *vm;

	for (unsigned i = 0; i < sizeof(elf); i++)
		elf[i] = i;
	put_addresses(elf + 0x80, 0x100080, 0x100000, 0, 0x108000, 0x100004);
	save_elf();
	make_initrd();
	boots_in(64 * MiB, &vm, initrd_path, "a b");
	check_protected_mode(0x100004);
	assert_memory(vm, 0x100000, elf, sizeof(elf));
	assert_int_equal(peek(vm, 0x101000, 8), 0);
	check_mbi(vm, cpu.gpr[REG_RBX]);
	free_vm(vm);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		const uint32_t *a = bad[i].a;

		put_addresses(elf + 0x80, a[0], a[1], a[2], a[3], a[4]);
		save_elf();
		refused_in(64 * MiB, NULL, NULL, bad[i].word, kernel_path);
	}
	put_header(elf + 0x80, 8);
	save_elf();
	refused_in(64 * MiB, NULL, NULL, "features", kernel_path);
	put_header(elf + 0x80, 3);
	save_elf();
	refused_in(64 * MiB, NULL, NULL, "no address fields", kernel_path);
}

/* ---- What is no kernel at all ------------------------------------------------- */

static void other_files(void **state)
{
	struct skep_error e;
	struct vm *vm;

	save(kernel_path, "", 0);
	refused_in(16 * MiB, NULL, NULL, "empty", kernel_path);
	save(kernel_path, "#!/bin/sh\necho hello\n", 21);
	refused_in(16 * MiB, NULL, NULL, "not a kernel", kernel_path);
	save(kernel_path, "\x1f\x8b\x08", 3);
	refused_in(16 * MiB, NULL, NULL, "compressed by gzip", kernel_path);
	unlink(kernel_path);
	refused_in(16 * MiB, NULL, NULL, "No such file", kernel_path);
	assert_int_equal(mkdir(kernel_path, 0700), 0);
	refused_in(16 * MiB, NULL, NULL, "directory", kernel_path);
	rmdir(kernel_path);
	make_bzimage();
	save_kernel();
	unlink(initrd_path);
	refused_in(64 * MiB, initrd_path, NULL, "No such file", initrd_path);

	/* No kernel: a machine can be made, but not started. */
	vm = make_vm(16 * MiB, NULL, NULL);
	config_destroy(vm->config);
	vm->config = config_create();
	assert_int_equal(config_freeze(vm->config, &e), 0);
	assert_int_equal(boot_load(vm, &e), 0);
	assert_true(boot_place(vm, &e) < 0);
	assert_non_null(strstr(e.text, "boot.kernel is not set"));
	free_vm(vm);
}

static void kernel_from_a_pipe(void **state)
{
	struct vm *vm;
	pid_t child;

	make_bzimage();
	unlink(kernel_path);
	assert_int_equal(mkfifo(kernel_path, 0600), 0);
	child = fork();
	if (!child) {
		int fd = open(kernel_path, O_WRONLY);

		_exit(write(fd, bzimage, sizeof(bzimage)) != sizeof(bzimage));
	}
	boots_in(64 * MiB, &vm, NULL, NULL);
	assert_memory(vm, 0x1000000, bzimage + SETUP, PAYLOAD);
	free_vm(vm);
	unlink(kernel_path);
}

/* ---- The initial RAM disk ------------------------------------------------------- */

static void initrd_errors(void **state)
{
	uint8_t buf[4096];

	make_bzimage();
	save_kernel();
	save(initrd_path, "", 0);
	refused_in(64 * MiB, initrd_path, NULL, "empty", initrd_path);
	memset(buf, 0x37, sizeof(buf));
	save(initrd_path, buf, sizeof(buf));
	refused_in(64 * MiB, initrd_path, NULL, "not an initial RAM disk", initrd_path);
	make_initrd();
	assert_int_equal(truncate(initrd_path, 200), 0);
	refused_in(64 * MiB, initrd_path, NULL, "truncated", initrd_path);
	make_initrd();
	assert_int_equal(truncate(initrd_path, 117), 0);
	refused_in(64 * MiB, initrd_path, NULL, "truncated", initrd_path);
	memcpy(buf, "\xfd" "7zXZ\0", 6);
	save(initrd_path, buf, sizeof(buf));
	refused_in(64 * MiB, initrd_path, NULL, "xz", "truncated");
	/* zstd: a frame header, then a raw block that is longer than the file. */
	memcpy(buf, "\x28\xb5\x2f\xfd\x00\x58\x00\xff\x00", 9);
	save(initrd_path, buf, 100);
	refused_in(64 * MiB, initrd_path, NULL, "zstd", "truncated");
	memcpy(buf, "\x02\x21\x4c\x18\x00\x10\x00\x00", 8);
	save(initrd_path, buf, 100);
	refused_in(64 * MiB, initrd_path, NULL, "lz4", "truncated");
}

static void initrd_in_two_parts(void **state)
{
	struct vm *vm;
	uint8_t buf[1024 + 17] = { 0 };
	FILE *in;

	make_bzimage();
	save_kernel();
	make_initrd();
	in = fopen(initrd_path, "r");
	assert_int_equal(fread(buf, 1, 512, in), 512);
	fclose(in);
	/* A zstd frame: one raw block of four bytes, last, no checksum. */
	memcpy(buf + 1024, "\x28\xb5\x2f\xfd\x00\x58\x21\x00\x00" "abcd", 13);
	save(initrd_path, buf, 1024 + 13);
	boots_in(64 * MiB, &vm, initrd_path, NULL);
	free_vm(vm);
	save(initrd_path, buf, 1024 + 12);
	refused_in(64 * MiB, initrd_path, NULL, "zstd", "truncated");
}

/* gzip is checked on a thread: wait for its verdict. */
static int gzip_verdict(struct vm **vm, const uint8_t *data, size_t len)
{
	save(initrd_path, data, len);
	boots_in(64 * MiB, vm, initrd_path, NULL);
	for (unsigned i = 0; i < 300; i++) {
		bool over;

		pthread_mutex_lock(&(*vm)->lock);
		over = (*vm)->exiting;
		pthread_mutex_unlock(&(*vm)->lock);
		if (over)
			return (*vm)->exit_code;
		usleep(1000);
	}
	return -1;
}

static void gzip_initrd(void **state)
{
	static uint8_t plain[300000], packed[400000];
	z_stream z = { .next_in = plain, .avail_in = sizeof(plain), .next_out = packed,
		       .avail_out = sizeof(packed) };
	struct vm *vm;
	size_t len;

	make_bzimage();
	save_kernel();
	for (unsigned i = 0; i < sizeof(plain); i++)
		plain[i] = rand() >> 16;
	assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	len = z.total_out;
	deflateEnd(&z);

	assert_int_equal(gzip_verdict(&vm, packed, len), -1);
	free_vm(vm);
	assert_int_equal(gzip_verdict(&vm, packed, len / 2), VM_EXIT_ERROR);
	assert_non_null(strstr(vm->exit_error.text, "truncated"));
	free_vm(vm);
	packed[len / 2] ^= 1;
	assert_int_equal(gzip_verdict(&vm, packed, len), VM_EXIT_ERROR);
	assert_non_null(strstr(vm->exit_error.text, "damaged"));
	free_vm(vm);
}

/* ---- Every length, every byte --------------------------------------------------- */

static void try_all(const uint8_t *image, size_t len, size_t step)
{
	struct vm *vm = make_vm(32 * MiB, NULL, NULL);
	uint8_t *copy = malloc(len);
	unsigned booted = 0;

	for (size_t n = 0; n < len; n += n < 1200 ? 1 : step) {
		save(kernel_path, image, n);
		booted += survives(vm);
	}
	assert_int_equal(booted, 0);
	for (size_t i = 0; i < len && i < 1300; i++)
		for (unsigned bit = 0; bit < 8; bit += 1 + i % 3) {
			memcpy(copy, image, len);
			copy[i] ^= 1 << bit;
			save(kernel_path, copy, len);
			booted += survives(vm);
		}
	assert_true(booted > 0);
	free(copy);
	free_vm(vm);
}

static void damaged_linux(void **state)
{
	make_bzimage();
	try_all(bzimage, sizeof(bzimage) - 15, 97);
}

static void damaged_pvh(void **state)
{
	make_vmlinux();
	try_all(elf, sizeof(elf), 97);
}

static void damaged_multiboot(void **state)
{
	memset(elf, 0, sizeof(elf));
	put_addresses(elf + 0x80, 0x100080, 0x100000, 0x101000, 0x108000, 0x100004);
	try_all(elf, sizeof(elf), 97);
}

static void damaged_initrd(void **state)
{
	struct vm *vm;
	uint8_t cpio[512], copy[512];
	FILE *in;

	make_bzimage();
	save_kernel();
	make_initrd();
	in = fopen(initrd_path, "r");
	assert_int_equal(fread(cpio, 1, sizeof(cpio), in), sizeof(cpio));
	fclose(in);
	vm = make_vm(32 * MiB, initrd_path, NULL);
	for (size_t n = 0; n < 240; n++) {
		save(initrd_path, cpio, n);
		assert_false(survives(vm));
	}
	for (size_t i = 0; i < sizeof(cpio); i++) {
		memcpy(copy, cpio, sizeof(cpio));
		copy[i] ^= 1 << i % 8;
		save(initrd_path, copy, sizeof(copy));
		survives(vm);
	}
	free_vm(vm);
}

/* ---- Finding room ----------------------------------------------------------------- */

static void placement(void **state)
{
	struct vm *vm = test_vm(CLOCK_MODE_VIRTUAL);
	struct placement p;
	uint64_t base;

	place_init(&p, vm);
	assert_int_equal(place_claim(&p, 0x100000, 0x1000), 0);
	assert_true(place_claim(&p, 0x100fff, 1) < 0);
	assert_true(place_claim(&p, 0x9fc00, 1) < 0);
	assert_true(place_claim(&p, 0x9fbff, 2) < 0);
	assert_true(place_claim(&p, TEST_RAM, 1) < 0);
	assert_true(place_claim(&p, TEST_RAM - 1, 2) < 0);
	assert_true(place_claim(&p, UINT64_MAX, 2) < 0);
	assert_true(place_claim(&p, 0x200000, UINT64_MAX) < 0);
	assert_true(place_find(&p, 0x1000, 0x1000, 0x100000, UINT64_MAX, false, &base));
	assert_int_equal(base, 0x101000);
	assert_true(place_find(&p, 0x1800, 0x1000, 0, UINT64_MAX, true, &base));
	assert_int_equal(base, TEST_RAM - 0x2000);
	assert_true(place_find(&p, 0x800, 0x800, 0, UINT64_MAX, true, &base));
	assert_int_equal(base, TEST_RAM - 0x800);
	assert_true(place_find(&p, 0x1000, 0x1000, 0, UINT64_MAX, true, &base));
	assert_int_equal(base, TEST_RAM - 0x3000);
	assert_false(place_find(&p, TEST_RAM, 1, 0, UINT64_MAX, true, &base));
	assert_false(place_find(&p, UINT64_MAX, 1, 0, UINT64_MAX, false, &base));
	assert_false(place_find(&p, 1, 1, TEST_RAM, 0x100000000, false, &base));
	for (unsigned i = 0; i < 2 * PLACE_MAX; i++)
		place_find(&p, 1, 1, 0, 0x80000, false, &base);
	assert_int_equal(p.nused, PLACE_MAX);
	test_vm_free(vm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(linux_boots), cmocka_unit_test(linux_memory_map),
		cmocka_unit_test(linux_boots_again_after_reset),
		cmocka_unit_test(linux_moves_if_it_must), cmocka_unit_test(linux_needs_room),
		cmocka_unit_test(linux_header_errors), cmocka_unit_test(pvh_boots),
		cmocka_unit_test(bss_is_cleared_at_every_boot), cmocka_unit_test(elf_errors),
		cmocka_unit_test(multiboot_elf_boots), cmocka_unit_test(multiboot_elf32_boots),
		cmocka_unit_test(multiboot_addresses), cmocka_unit_test(other_files),
		cmocka_unit_test(kernel_from_a_pipe), cmocka_unit_test(initrd_errors),
		cmocka_unit_test(initrd_in_two_parts), cmocka_unit_test(gzip_initrd),
		cmocka_unit_test(damaged_linux), cmocka_unit_test(damaged_pvh),
		cmocka_unit_test(damaged_multiboot), cmocka_unit_test(damaged_initrd),
		cmocka_unit_test(placement),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
