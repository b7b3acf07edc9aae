/*
 * The machine's tables as a kernel finds them: built, laid out by our own run
 * of the loader script, and read back from guest memory.
 */
#include "vm_helper.h"

#include <string.h>

#include "boot/aml.h"
#include "boot/fwcfg.h"
#include "boot/tables.h"
#include "chipset/chipset.h"
#include "clock/vmclock.h"
#include "clock/vmgenid.h"
#include "config/config.h"

static struct vm *vm;
static struct fwcfg *f;
static uint64_t rsdp_at;

static void place(unsigned ncpus)
{
	struct skep_error e = { .text = "" };

	vm->ncpus = ncpus;
	f = fwcfg_create(vm, &e);
	assert_non_null(f);
	assert_non_null(vmgenid_create(vm, &e));
	assert_non_null(vmclock_create(vm, &e));
	if (tables_build(vm, f, &e) || tables_place(vm, f, &rsdp_at, &e))
		fail_msg("%s", e.text);
	vm->ncpus = 1;
}

static int setup(void **state)
{
	vm = test_vm(CLOCK_MODE_VIRTUAL);
	strcpy(vm->name, "bee");
	for (unsigned i = 0; i < 16; i++)
		vm->uuid[i] = i;
	return 0;
}

static int teardown(void **state)
{
	test_vm_free(vm);
	return 0;
}

static uint8_t sum(uint64_t gpa, size_t len)
{
	uint8_t s = 0, b;

	while (len--) {
		assert_int_equal(dma_read(&vm->memory, gpa++, &b, 1), 0);
		s += b;
	}
	return s;
}

static uint64_t peek(uint64_t gpa, unsigned bytes)
{
	uint64_t v = 0;

	assert_int_equal(dma_read(&vm->memory, gpa, &v, bytes), 0);
	return v;
}

static void assert_text(uint64_t gpa, const char *text)
{
	char buf[64] = "";

	assert_int_equal(dma_read(&vm->memory, gpa, buf, strlen(text)), 0);
	assert_string_equal(buf, text);
}

/* The table with this signature, by XSDT (8) or RSDT (4); checked. */
static uint64_t table(const char *signature, unsigned size)
{
	uint64_t root = size == 8 ? peek(rsdp_at + 24, 8) : peek(rsdp_at + 16, 4);
	uint32_t len = peek(root + 4, 4);
	char sig[5] = "";

	assert_text(root, size == 8 ? "XSDT" : "RSDT");
	assert_int_equal(sum(root, len), 0);
	for (uint32_t i = 36; i < len; i += size) {
		uint64_t at = peek(root + i, size);

		dma_read(&vm->memory, at, sig, 4);
		assert_int_equal(sum(at, peek(at + 4, 4)), 0);
		if (!strcmp(sig, signature))
			return at;
	}
	fail_msg("no %s", signature);
	return 0;
}

/* As Linux looks for it: 16-byte steps from 0xe0000. */
static void root_pointer(void **state)
{
	uint64_t at = 0xe0000;
	char sig[9] = "";

	place(1);
	for (; at < 0x100000; at += 16)
		if (!dma_read(&vm->memory, at, sig, 8) && !strcmp(sig, "RSD PTR "))
			break;
	assert_int_equal(at, rsdp_at);
	assert_int_equal(sum(at, 20), 0);
	assert_int_equal(sum(at, 36), 0);
	assert_int_equal(peek(at + 15, 1), 2);
	assert_int_equal(peek(at + 20, 4), 36);
	for (unsigned size = 4; size <= 8; size += 4) {
		assert_true(table("FACP", size));
		assert_true(table("APIC", size));
		assert_true(table("MCFG", size));
		assert_true(table("HPET", size));
	}
}

static void fixed_hardware(void **state)
{
	uint64_t fadt, dsdt, facs;

	place(1);
	fadt = table("FACP", 8);
	assert_int_equal(peek(fadt + 4, 4), 276);
	dsdt = peek(fadt + 40, 4);
	assert_int_equal(peek(fadt + 140, 8), dsdt);
	assert_text(dsdt, "DSDT");
	assert_int_equal(sum(dsdt, peek(dsdt + 4, 4)), 0);
	facs = peek(fadt + 36, 4);
	assert_int_equal(facs % 64, 0);
	assert_text(facs, "FACS");
	assert_int_equal(peek(facs + 4, 4), 64);
	assert_int_equal(peek(fadt + 46, 2), SCI_IRQ);
	assert_int_equal(peek(fadt + 48, 4), 0);
	assert_int_equal(peek(fadt + 56, 4), PM_BASE);
	assert_int_equal(peek(fadt + 64, 4), PM_BASE + PM1_CNT_OFFSET);
	assert_int_equal(peek(fadt + 76, 4), PM_BASE + PM_TMR_OFFSET);
	assert_int_equal(peek(fadt + 80, 4), PM_BASE + GPE0_OFFSET);
	assert_int_equal(peek(fadt + 92, 1), GPE0_LEN);
	assert_int_equal(peek(fadt + 109, 2) & 2, 0);		/* no 8042 */
	assert_int_equal(peek(fadt + 112, 4) & 0x10, 0);	/* power button: fixed */
	assert_int_equal(peek(fadt + 112, 4) & 0x40, 0);	/* the RTC's alarm: RTC_STS */
	assert_int_equal(peek(fadt + 108, 1), 0x32);		/* its century byte */
	assert_int_equal(peek(fadt + 112, 4) & 0x400, 0x400);
	assert_int_equal(peek(fadt + 116, 1), 1);
	assert_int_equal(peek(fadt + 120, 8), RESET_PORT);
	assert_int_equal(peek(fadt + 128, 1), RESET_VALUE);
	/* The extended blocks say what the legacy ones say. */
	assert_int_equal(peek(fadt + 152, 8), PM_BASE);
	assert_int_equal(peek(fadt + 149, 1), PM1_EVT_LEN * 8);
	assert_int_equal(peek(fadt + 176, 8), PM_BASE + PM1_CNT_OFFSET);
	assert_int_equal(peek(fadt + 212, 8), PM_BASE + PM_TMR_OFFSET);
	assert_int_equal(peek(fadt + 224, 8), PM_BASE + GPE0_OFFSET);
	assert_int_equal(peek(fadt + 221, 1), GPE0_LEN * 8);
}

static void check_madt(unsigned ncpus)
{
	unsigned lapics = 0, ioapics = 0, overrides = 0, nmis = 0;
	uint64_t madt;

	place(ncpus);
	madt = table("APIC", 8);
	assert_int_equal(peek(madt + 36, 4), LAPIC_BASE);
	for (uint32_t i = 44, len = peek(madt + 4, 4); i < len; i += peek(madt + i + 1, 1)) {
		uint64_t at = madt + i;

		switch (peek(at, 1)) {
		case 0:
			assert_int_equal(peek(at + 1, 1), 8);
			assert_int_equal(peek(at + 3, 1), lapics);
			assert_int_equal(peek(at + 4, 4), 1);
			lapics++;
			break;
		case 9:
			assert_true(lapics >= 255);
			assert_int_equal(peek(at + 4, 4), lapics);
			lapics++;
			break;
		case 1:
			assert_int_equal(peek(at + 4, 4), IOAPIC_BASE);
			ioapics++;
			break;
		case 2:
			if (peek(at + 3, 1) == 0)
				assert_int_equal(peek(at + 4, 4), 2);
			else
				assert_int_equal(peek(at + 8, 2), 0x0d);
			overrides++;
			break;
		case 4:
			assert_int_equal(peek(at + 5, 1), 1);
			nmis++;
			break;
		case 10:
			assert_true(ncpus > 255);
			break;
		default:
			fail_msg("MADT entry of type %u", (unsigned)peek(at, 1));
		}
		assert_true(peek(at + 1, 1));
	}
	assert_int_equal(lapics, ncpus);
	assert_int_equal(ioapics, 1);
	assert_int_equal(overrides, 2);
	assert_int_equal(nmis, 1);
}

static void one_processor(void **state) { check_madt(1); }
static void many_processors(void **state) { check_madt(64); }
static void more_than_xapic_can_name(void **state) { check_madt(300); }

/* A table where NUMA domains are asked for: each processor and all RAM once. */
static void domains(void **state)
{
	static const char *const keys[][2] = {
		{ "cpus", "4" }, { "sockets", "2" }, { "cores", "2" }, { "memory.size", "256M" },
		{ "domains.0.size", "1M" }, { "domains.0.cpus", "0,3" },
		{ "domains.1.size", "255" }, { "domains.1.cpus", "1-2" },
	};
	static const unsigned of_cpu[] = { 0, 1, 1, 0 };
	uint64_t at, size[2] = { 0 }, end = 0;
	struct skep_error e = { .text = "" };
	unsigned cpus = 0;

	vm->config = config_create();
	for (unsigned i = 0; i < ARRAY_SIZE(keys); i++)
		assert_int_equal(config_set(vm->config, keys[i][0], keys[i][1], "", &e), 0);
	if (config_freeze(vm->config, &e))
		fail_msg("%s", e.text);
	place(4);
	at = table("SRAT", 8);
	assert_int_equal(table("SRAT", 4), at);
	assert_int_equal(peek(at + 36, 4), 1);
	for (uint32_t i = 48, len = peek(at + 4, 4); i < len; i += peek(at + i + 1, 1)) {
		uint64_t one = at + i;

		assert_true(peek(one + 1, 1));
		if (peek(one, 1) == 0) {
			assert_int_equal(peek(one + 1, 1), 16);
			assert_int_equal(peek(one + 3, 1), cpus);
			assert_int_equal(peek(one + 2, 1), of_cpu[cpus]);
			assert_int_equal(peek(one + 4, 4), 1);
			cpus++;
			continue;
		}
		assert_int_equal(peek(one, 1), 1);
		assert_int_equal(peek(one + 1, 1), 40);
		assert_true(peek(one + 2, 4) < 2);
		assert_int_equal(peek(one + 8, 8), end);
		assert_int_equal(peek(one + 28, 4), 1);
		end += peek(one + 16, 8);
		size[peek(one + 2, 4)] += peek(one + 16, 8);
	}
	assert_int_equal(cpus, 4);
	assert_int_equal(size[0], MiB);
	assert_int_equal(end, MIN(vm->memory.ram[0].size, 256 * MiB));
	config_destroy(vm->config);
	vm->config = NULL;
}

static void mcfg(void **state)
{
	uint64_t at;

	place(1);
	at = table("MCFG", 8);
	assert_int_equal(peek(at + 44, 8), ECAM_BASE);
	assert_int_equal(peek(at + 54, 1), 0);
	assert_int_equal(peek(at + 55, 1), 255);
}

static void hpet(void **state)
{
	uint64_t at;

	place(1);
	at = table("HPET", 8);
	assert_int_equal(peek(at + 4, 4), 56);
	/* The low half of the capabilities register, and a period that a driver can divide by. */
	assert_int_equal(peek(at + 36, 4), HPET_ID);
	assert_int_equal(peek(at + 40, 1), 0);
	assert_int_equal(peek(at + 44, 8), HPET_BASE);
	assert_int_equal(peek(at + 52, 1), 0);
	assert_int_equal(peek(at + 53, 2), HPET_MIN_TICK);
}

/* Pages that devices share with the guest: where the tables and the devices were told that they lie. */
static void shared_pages(void **state)
{
	uint64_t dsdt, at, clock;
	size_t len;

	place(1);
	at = load64(fwcfg_get_file(f, FILE_VMGENID_ADDR, &len));
	clock = load64(fwcfg_get_file(f, FILE_VMCLOCK_ADDR, &len));
	assert_int_equal(at % 4096 | clock % 4096, 0);
	assert_true(at >= 0xe0000 && clock == at + 4096 && clock + 4096 <= 0xf0000);
	assert_true(peek(at + VMGENID_OFFSET, 8));
	assert_int_equal(peek(clock, 4), VMCLOCK_MAGIC_VALUE);
	/* Name (VGIA, DWord) and Name (VCIA, DWord) come first. */
	dsdt = peek(table("FACP", 8) + 40, 4) + 36;
	assert_text(dsdt + 1, "VGIA");
	assert_int_equal(peek(dsdt + 6, 4), at + VMGENID_OFFSET);
	assert_text(dsdt + 11, "VCIA");
	assert_int_equal(peek(dsdt + 16, 4), clock);
}

/* Follows the structures; returns the one of this type. */
static uint64_t smbios(unsigned type)
{
	uint64_t at = 0xf0000, t, end;
	char sig[6] = "";

	for (; at < 0x100000; at += 16)
		if (!dma_read(&vm->memory, at, sig, 5) && !strcmp(sig, "_SM3_"))
			break;
	assert_true(at < 0x100000);
	assert_int_equal(sum(at, peek(at + 6, 1)), 0);
	t = peek(at + 16, 8);
	end = t + peek(at + 12, 4);
	while (t < end) {
		if (peek(t, 1) == type)
			return t;
		assert_true(peek(t + 1, 1) >= 4);
		for (t += peek(t + 1, 1); peek(t, 2); t++)
			assert_true(t < end);
		t += 2;
	}
	assert_int_equal(t, end);
	return 0;
}

static void smbios_tables(void **state)
{
	static const uint8_t uuid[16] = { 3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15 };
	static const uint8_t wanted[] = { 0, 1, 3, 4, 16, 17, 19, 32, 127 };
	uint8_t got[16];
	uint64_t at;

	place(1);
	for (unsigned i = 0; i < ARRAY_SIZE(wanted); i++)
		assert_true(smbios(wanted[i]));
	at = smbios(1);
	dma_read(&vm->memory, at + 8, got, sizeof(got));
	assert_memory_equal(got, uuid, sizeof(uuid));
	at = smbios(17);
	assert_int_equal(peek(at + 12, 2), TEST_RAM / MiB);
	at = smbios(19);
	assert_int_equal(peek(at + 15, 8), 0);
	assert_int_equal(peek(at + 23, 8), TEST_RAM - 1);
	at = smbios(3);
	assert_int_equal(peek(at + 8, 1), 3);	/* third string: the name */
	assert_text(at + peek(at + 1, 1), "skep");
	assert_text(at + peek(at + 1, 1) + 7, "bee");
	assert_int_equal(smbios(200), 0);
}

static void same_machine_same_bytes(void **state)
{
	static uint8_t first[0x20000], second[0x20000];

	place(3);
	dma_read(&vm->memory, 0xe0000, first, sizeof(first));
	test_vm_free(vm);
	setup(NULL);
	place(3);
	dma_read(&vm->memory, 0xe0000, second, sizeof(second));
	assert_memory_equal(first, second, sizeof(first));
}

static int run_script(const struct blob *s)
{
	struct skep_error e = { .text = "" };
	struct loader l;
	int r;

	loader_init(&l, vm, f);
	r = loader_run(&l, s->data, s->len, &e);
	if (!r)
		r = loader_write(&l, &e);
	if (!r)
		r = loader_tell(&l, s->data, s->len, &e);
	loader_finish(&l);
	assert_true(!r == !e.text[0]);
	return r;
}

static void hostile_scripts(void **state)
{
	struct skep_error e;
	struct blob s = { 0 };
	const uint8_t *script;
	uint8_t *copy;
	size_t len;
	uint64_t x = 42;

	place(1);
	assert_int_equal(fwcfg_set_file(f, "eight", "12345678", 8, false, &e), 0);
	static const struct { uint32_t align; unsigned zone; } bad[] = {
		{ 0, 1 }, { 3, 1 }, { 16, 0 }, { 16, 3 }, { 1u << 31, 1 },
	};
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		loader_allocate(&s, "eight", bad[i].align, bad[i].zone);
		assert_true(run_script(&s) < 0);
		blob_free(&s);
	}
	for (uint32_t offset = 0; offset < 12; offset++) {
		loader_allocate(&s, "eight", 1, LOADER_HIGH);
		loader_add_pointer(&s, "eight", offset, 4, "eight");
		assert_int_equal(!run_script(&s), offset <= 4);
		blob_free(&s);
	}
	loader_allocate(&s, "eight", 1, LOADER_HIGH);
	loader_add_checksum(&s, "eight", 7, 1, UINT32_MAX);
	assert_true(run_script(&s) < 0);
	blob_free(&s);
	loader_add_pointer(&s, "eight", 0, 4, "nowhere");
	assert_true(run_script(&s) < 0);
	blob_free(&s);

	/* What is told, and to which file. */
	assert_int_equal(fwcfg_set_file(f, "told", "12345678", 8, true, &e), 0);
	assert_int_equal(fwcfg_set_file(f, "four", "1234", 4, true, &e), 0);
	static const struct { const char *dest, *src; bool good; } tell[] = {
		{ "told", "eight", true }, { "told", "nowhere", false }, { "nowhere", "eight", false },
		{ "eight", "eight", false }, { "four", "eight", false },
	};
	for (unsigned i = 0; i < ARRAY_SIZE(tell); i++) {
		loader_allocate(&s, "eight", 64, LOADER_HIGH);
		loader_write_pointer(&s, tell[i].dest, tell[i].src);
		assert_int_equal(!run_script(&s), tell[i].good);
		blob_free(&s);
	}
	assert_int_equal(load64(fwcfg_get_file(f, "told", &len)), 0xe0000);

	/* The real one with any byte changed: an answer, never a crash. */
	script = fwcfg_get_file(f, FILE_LOADER, &len);
	copy = malloc(len);
	for (unsigned i = 0; i < 2000; i++) {
		struct blob b = { .data = copy, .len = len - x % 128 };

		memcpy(copy, script, len);
		x = x * 6364136223846793005ull + 1442695040888963407ull;
		copy[(x >> 20) % len] ^= x >> 50;
		run_script(&b);
	}
	free(copy);
}

/* PkgLength in each of its encodings, by section 20.2.4. */
static void package_lengths(void **state)
{
	static const struct { size_t content; unsigned bytes; } t[] = {
		{ 0, 1 }, { 62, 1 }, { 63, 2 }, { 4093, 2 }, { 4094, 3 }, { 1048572, 3 }, { 1048573, 4 },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		struct blob b = { 0 };
		size_t open = aml_if(&b), len;

		blob_zero(&b, t[i].content);
		aml_end(&b, open);
		assert_false(b.failed);
		assert_int_equal(b.len, 1 + t[i].bytes + t[i].content);
		assert_int_equal(b.data[1] >> 6, t[i].bytes - 1);
		len = t[i].bytes == 1 ? b.data[1] : b.data[1] & 0xf;
		for (unsigned k = 1; k < t[i].bytes; k++)
			len |= (size_t)b.data[1 + k] << (4 + 8 * (k - 1));
		assert_int_equal(len, t[i].bytes + t[i].content);
		blob_free(&b);
	}
}

static void names_and_numbers(void **state)
{
	struct blob b = { 0 };

	aml_path(&b, "\\_SB.PCI0.X");
	assert_memory_equal(b.data, "\\\x2f\3_SB_PCI0X___", b.len);
	blob_free(&b);
	aml_path(&b, "A.B");
	assert_memory_equal(b.data, "\x2e" "A___B___", b.len);
	blob_free(&b);
	aml_eisa(&b, "PNP0A03");
	assert_memory_equal(b.data, "\x0c\x41\xd0\x0a\x03", 5);
	blob_free(&b);
	aml_int(&b, 1);
	aml_int(&b, 2);
	aml_int(&b, 256);
	aml_int(&b, 65536);
	aml_int(&b, 1ull << 32);
	assert_memory_equal(b.data, "\1\x0a\2\x0b\0\1\x0c\0\0\1\0\x0e\0\0\0\0\1\0\0\0", b.len);
	blob_free(&b);
}

/* Leaves one table in DIR/NAME.aml. */
static void write_table(const char *dir, const char *name, uint64_t at)
{
	size_t len = peek(at + 4, 4);
	uint8_t *data = malloc(len);
	char path[256];
	FILE *out;

	assert_int_equal(dma_read(&vm->memory, at, data, len), 0);
	snprintf(path, sizeof(path), "%s/%s.aml", dir, name);
	out = fopen(path, "w");
	assert_non_null(out);
	assert_int_equal(fwrite(data, 1, len, out), len);
	fclose(out);
	free(data);
}

static int shell(const char *format, const char *dir)
{
	char command[512];

	snprintf(command, sizeof(command), format, dir);
	return system(command);
}

/* ACPICA takes our tables apart, and puts the DSDT together again, without a complaint. */
static void acpica_agrees(void **state)
{
	static const char *const names[] = { "FACP", "APIC", "MCFG", "HPET" };
	char dir[] = "/tmp/skep-acpi-XXXXXX";
	int complaints;

	if (system("command -v iasl >/dev/null 2>&1"))
		skip();
	assert_non_null(mkdtemp(dir));
	place(2);
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
		write_table(dir, names[i], table(names[i], 8));
	write_table(dir, "DSDT", peek(table("FACP", 8) + 40, 4));
	assert_int_equal(shell("cd %s && for t in *.aml; do iasl -d $t; done >log 2>&1", dir), 0);
	assert_int_equal(shell("cd %s && iasl -p again DSDT.dsl >>log 2>&1", dir), 0);
	complaints = !shell("cd %s && grep -nE '^(Error|Warning|Remark)|Invalid|ACPI (Error|Warning)|"
			    "[1-9][0-9]* (Errors|Warnings|Remarks)' log *.dsl", dir);
	shell("rm -r %s", dir);
	assert_false(complaints);
}

/* ACPICA's interpreter runs the methods of PCI's interrupts, with a routing register of its own. */
static void acpica_routes(void **state)
{
	char dir[] = "/tmp/skep-acpi-XXXXXX";
	bool enabled, disabled, current, fixed;

	if (system("command -v acpiexec >/dev/null 2>&1")) {
		print_message("SKIP: acpiexec (package acpica-tools) is not installed\n");
		skip();
	}
	assert_non_null(mkdtemp(dir));
	place(1);
	write_table(dir, "DSDT", peek(table("FACP", 8) + 40, 4));
	shell("cd %s && acpiexec -b 'evaluate \\_SB.LNKD._STA; evaluate \\_SB.LNKD._DIS; "
	      "evaluate \\_SB.LNKD._STA; evaluate \\_SB.LNKD._CRS; evaluate \\_PIC 1; "
	      "evaluate \\_SB.PCI0._PRT' DSDT.aml >run 2>&1", dir);
	enabled = !shell("cd %s && grep -q 'Integer. = 000000000000000B' run", dir);
	disabled = !shell("cd %s && grep -q 'Integer. = 0000000000000009' run", dir);
	current = !shell("cd %s && grep -q '89 06 00 0D 01 00 00 00 00 79' run", dir);
	/* Slot 3, INTA: GSI 19. */
	fixed = !shell("cd %s && grep -A3 000000000003FFFF run | tr -d '\\n' | "
		       "grep -q 'FFFF *.Integer. = 0* *.Integer. = 0* *.Integer. = 0*13'", dir);
	shell("rm -r %s", dir);
	assert_true(enabled && disabled && current && fixed);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(root_pointer), T(fixed_hardware), T(one_processor), T(many_processors),
		T(more_than_xapic_can_name), T(domains), T(mcfg), T(shared_pages), T(hpet), T(smbios_tables),
		T(same_machine_same_bytes), T(hostile_scripts), T(package_lengths),
		T(names_and_numbers), T(acpica_agrees), T(acpica_routes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
