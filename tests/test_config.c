/* The configuration tree: parsing, nearest keys, expansion, dump and reload. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "config/config.h"
#include "config/internal.h"
#include "config/nearest.h"

static struct config *with(const char *const *settings)
{
	struct config *c = config_create();
	struct skep_error e = { "" };

	assert_non_null(c);
	for (; *settings; settings++)
		if (config_set_assignment(c, *settings, NULL, &e))
			fail_msg("%s: %s", *settings, e.text);
	return c;
}

#define WITH(...) with((const char *const []){ __VA_ARGS__, NULL })

static void must_freeze(struct config *c)
{
	struct skep_error e = { "" };

	if (config_freeze(c, &e))
		fail_msg("%s", e.text);
}

/* Setting or freezing fails, with the words in its sentence. */
static void refused(const char *words, const char *const *settings)
{
	struct config *c = config_create();
	struct skep_error e = { "" };
	int ret = 0;

	for (; !ret && *settings; settings++)
		ret = config_set_assignment(c, *settings, "-o", &e);
	if (!ret)
		ret = config_freeze(c, &e);
	assert_true(ret < 0);
	if (!strstr(e.text, words))
		fail_msg("\"%s\" does not say \"%s\"", e.text, words);
	config_destroy(c);
}

#define REFUSED(words, ...) refused(words, (const char *const []){ __VA_ARGS__, NULL })

static void test_sizes(void **state)
{
	static const struct { const char *text; uint64_t unit, v; } good[] = {
		{ "0", 0, 0 }, { "512", MiB, 512 * MiB }, { "512", 0, 512 }, { "1K", MiB, 1024 },
		{ "2M", 0, 2 * MiB }, { "2m", 0, 2 * MiB }, { "3G", 0, 3 * GiB },
		{ "1T", 0, 1024 * GiB }, { "4KiB", 0, 4096 }, { "4kib", 0, 4096 },
		{ "16MB", 0, 16 * MiB }, { "16Mb", 0, 16 * MiB }, { "100B", MiB, 100 },
		{ "0x10M", 0, 16 * MiB }, { "18446744073709551615", 0, UINT64_MAX },
		{ "16777215T", 0, 16777215ull << 40 },
	};
	static const char *const bad[] = {
		"", "M", "-1", "+1", " 1", "1 ", "1.5G", "1Q", "1MM", "1KiBB", "1i", "0x", "0xg",
		"18446744073709551616", "16777216T", "1iB", "1e3", "1K1",
	};
	uint64_t v;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_int_equal(value_parse_size(good[i].text, good[i].unit, &v), 0);
		assert_true(v == good[i].v);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (!value_parse_size(bad[i], 0, &v))
			fail_msg("\"%s\" was taken for a size", bad[i]);
	/* A bare number can overflow through its unit. */
	assert_true(value_parse_size("18446744073709551615", MiB, &v) < 0);
}

static void test_size_text(void **state)
{
	char buf[24];

	assert_string_equal(value_size_text(0, buf), "0");
	assert_string_equal(value_size_text(1000, buf), "1000");
	assert_string_equal(value_size_text(4096, buf), "4K");
	assert_string_equal(value_size_text(256 * MiB, buf), "256M");
	assert_string_equal(value_size_text(4096 * GiB, buf), "4T");
}

static void test_booleans(void **state)
{
	static const char *const yes[] = { "true", "on", "yes", "1", "True", "ON" };
	static const char *const no[] = { "false", "off", "no", "0", "FALSE" };
	static const char *const bad[] = { "", "2", "tru", "y", "true ", "nope" };
	bool v;

	for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
		v = false;
		assert_int_equal(value_parse_bool(yes[i], &v), 0);
		assert_true(v);
	}
	for (size_t i = 0; i < ARRAY_SIZE(no); i++) {
		v = true;
		assert_int_equal(value_parse_bool(no[i], &v), 0);
		assert_false(v);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_true(value_parse_bool(bad[i], &v) < 0);
}

static void test_uuid(void **state)
{
	static const char *const bad[] = {
		"", "123e4567", "123e4567-e89b-12d3-a456-42661417400",
		"123e4567-e89b-12d3-a456-4266141740000", "123e4567e89b-12d3-a456-4266141740000",
		"123e4567-e89b-12d3-a456-42661417400g", "{23e4567-e89b-12d3-a456-426614174000",
	};
	struct config *c = WITH("uuid=123E4567-e89b-12d3-a456-42661417400f");
	uint8_t u[16];

	must_freeze(c);
	assert_true(config_uuid(config_root(c), "uuid", u));
	assert_int_equal(u[0], 0x12);
	assert_int_equal(u[3], 0x67);
	assert_int_equal(u[15], 0x0f);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_true(value_parse_uuid(bad[i], u) < 0);
	config_destroy(c);
	c = config_create();
	must_freeze(c);
	assert_false(config_uuid(config_root(c), "uuid", u));
	config_destroy(c);
}

static void test_defaults(void **state)
{
	struct config *c = config_create();
	struct config_node *root = config_root(c);

	must_freeze(c);
	assert_string_equal(config_string(root, "name"), "skep");
	assert_true(config_uint(root, "memory.size") == 256 * MiB);
	assert_int_equal(config_uint(root, "cpus"), 1);
	assert_int_equal(config_uint(root, "sockets"), 1);
	assert_false(config_bool(root, "boot.demo"));
	assert_null(config_string(root, "boot.kernel"));
	assert_false(config_is_set(root, "boot.kernel"));
	assert_null(config_string(NULL, "name"));
	assert_null(config_find(c, "pci.0.0.0"));
	config_destroy(c);
	config_destroy(NULL);
}

static void test_later_wins(void **state)
{
	struct config *c = WITH("memory.size=1G", "name=a", "memory.size=64", "name=b");

	must_freeze(c);
	assert_true(config_uint(config_root(c), "memory.size") == 64 * MiB);
	assert_true(config_uint(config_find(c, "memory"), "size") == 64 * MiB);
	assert_string_equal(config_string(config_root(c), "name"), "b");
	config_destroy(c);
}

static void test_frozen(void **state)
{
	struct config *c = WITH("name=a");
	struct skep_error e = { "" };

	must_freeze(c);
	must_freeze(c);
	assert_int_equal(config_set(c, "name", "b", "-o", &e), -EPERM);
	assert_string_equal(config_string(config_root(c), "name"), "a");
	config_destroy(c);
}

/* A refusal leaves the tree open, and nothing derived from the wrong values in it. */
static void test_refused_then_corrected(void **state)
{
	struct config *c = WITH("cores=3", "cpus=4");
	struct skep_error e = { "" };

	assert_true(config_freeze(c, &e) < 0);
	assert_int_equal(config_set(c, "cores", "2", NULL, &e), 0);
	must_freeze(c);
	assert_int_equal(config_uint(config_root(c), "sockets"), 2);
	config_destroy(c);
}

static void test_natural_order(void **state)
{
	static const char *const want[] = { "0", "2", "10", "a2", "a10", "b" };
	struct config *c = WITH("x.10=1", "x.a10=1", "x.2=1", "x.b=1", "x.0=1", "x.a2=1");
	struct config_node *n = config_first(config_find(c, "x"));

	for (size_t i = 0; i < ARRAY_SIZE(want); i++, n = config_next(n)) {
		assert_non_null(n);
		assert_string_equal(config_name(n), want[i]);
		assert_memory_equal(config_path(n), "x.", 2);
	}
	assert_null(n);
	config_destroy(c);
}

static void test_nearest(void **state)
{
	REFUSED("unknown key \"memory.siz\"; did you mean \"memory.size\"?", "memory.siz=1G");
	REFUSED("did you mean \"memory.size\"?", "memroy.size=1G");
	REFUSED("did you mean \"memory.size\"?", "memory=1G");
	REFUSED("did you mean \"boot.kernel\"?", "kernel=x");
	REFUSED("did you mean \"cpus\"?", "cpu=1");
	REFUSED("did you mean \"lpc.com1.path\"?", "lpc.com1.pth=stdio");
	REFUSED("did you mean \"lpc.com1.path\"?", "lpc.con1.path=stdio");
	REFUSED("did you mean \"fwcfg.7.string\"?", "fwcfg.7.name=a", "fwcfg.7.string=b",
		"fwcfg.7.strng=b");
	REFUSED("`skep help keys` lists them", "quite.something.else=1");
	REFUSED("did you mean \"virtual\"?", "clock.mode=virtaul");
	assert_int_equal(nearest_distance("abcd", "abdc"), 1);
	assert_int_equal(nearest_distance("", "abc"), 3);
	assert_int_equal(nearest_distance("kitten", "sitting"), 3);
	assert_int_equal(nearest_distance("same", "same"), 0);
}

static void test_bad_keys(void **state)
{
	char key[400];
	struct config *c = config_create();
	struct skep_error e = { "" };

	REFUSED("is not a key", "=1");
	REFUSED("is not a key", ".name=1");
	REFUSED("is not a key", "name.=1");
	REFUSED("is not a key", "boot..kernel=1");
	REFUSED("is not a key", "na me=1");
	REFUSED("is not a key", "name/x=1");
	REFUSED("is not an assignment", "name");
	memset(key, 'a', sizeof(key) - 1);
	key[sizeof(key) - 1] = '\0';
	assert_true(config_set(c, key, "1", NULL, &e) < 0);
	/* As deep as a path can be. */
	for (size_t i = 1; i < 254; i += 2)
		key[i] = '.';
	key[255] = '\0';
	assert_int_equal(config_set(c, key, "1", NULL, &e), 0);
	config_destroy(c);
}

static void test_bad_values(void **state)
{
	REFUSED("too small; the least is 4M", "memory.size=1");
	REFUSED("too large", "memory.size=2T");
	REFUSED("not a multiple of 4K", "memory.size=5000001B");
	REFUSED("not a size", "memory.size=lots");
	REFUSED("neither true nor false", "boot.demo=maybe");
	REFUSED("not a whole number", "cpus=two");
	REFUSED("too small", "cpus=0");
	REFUSED("too large", "cpus=65");
	REFUSED("cannot be empty", "boot.kernel=");
	REFUSED("is none of: auto, soft, kvm", "backend=tcg");
	REFUSED("line break", "boot.cmdline=a\nname=b");
	REFUSED("-o: memory.size", "memory.size=x");
	REFUSED("cannot name a machine", "name=");
	REFUSED("cannot name a machine", "name=a/b");
	REFUSED("cannot name a machine", "name=..");
	REFUSED("cannot name a machine", "name=0123456789012345678901234567890123456789012345678901234567890123");
	REFUSED("control character", "name=a\tb");
	REFUSED("processors are not", "cpus=4", "cores=3");
	REFUSED("more than 64", "sockets=64", "cores=64");
	REFUSED("clock.mode=virtual only", "clock.limit=3");
	REFUSED("exclude each other", "clock.mode=virtual", "input.record=a", "input.replay=b");
}

static void test_not_built(void **state)
{
	REFUSED("gdb.port: ", "gdb.port=1234");
	REFUSED("lpc.bootrom: ", "lpc.bootrom=/x");
	REFUSED("memory.wired=on: ", "memory.wired=on");
	REFUSED("x86.vmexit_on_hlt=0: ", "x86.vmexit_on_hlt=0");
	REFUSED("virtio_msix: ", "virtio_msix=true");
	REFUSED("lpc.fwcfg=bhyve: ", "lpc.fwcfg=bhyve");
	REFUSED("clock.mode=virtual", "backend=kvm", "clock.mode=virtual");
	REFUSED("identity=hyperv", "backend=kvm", "identity=hyperv");
	/* The value that describes what is there is fine, in any spelling. */
	struct config *c = WITH("memory.wired=off", "x86.vmexit_on_hlt=yes", "lpc.fwcfg=qemu",
				"acpi_tables=1", "rtc.use_localtime=no");
	must_freeze(c);
	config_destroy(c);
}

static void test_topology(void **state)
{
	struct config *c = WITH("sockets=2", "cores=3");

	must_freeze(c);
	assert_int_equal(config_uint(config_root(c), "cpus"), 6);
	config_destroy(c);
	c = WITH("cpus=8", "threads=2", "cores=2");
	must_freeze(c);
	assert_int_equal(config_uint(config_root(c), "sockets"), 2);
	config_destroy(c);
}

static void test_domains(void **state)
{
	struct config_domain d[CONFIG_DOMAINS_MAX];
	struct config *c = WITH("cpus=4", "memory.size=3G", "domains.0.size=1G", "domains.0.cpus=0,2-3",
				"domains.1.size=2048", "domains.1.cpus=1");

	must_freeze(c);
	assert_int_equal(config_domains(c, d), 2);
	assert_int_equal(d[0].size, 1 * GiB);
	assert_int_equal(d[0].cpus, 0xd);
	assert_int_equal(d[1].size, 2 * GiB);
	assert_int_equal(d[1].cpus, 2);
	config_destroy(c);
	c = WITH("cpus=4");
	must_freeze(c);
	assert_int_equal(config_domains(c, d), 0);
	config_destroy(c);
	c = WITH("cpus=64", "domains.0.size=256M", "domains.0.cpus=0-63");
	must_freeze(c);
	config_domains(c, d);
	assert_int_equal(d[0].cpus, UINT64_MAX);
	config_destroy(c);
#define ONE(cpus) "cpus=4", "domains.0.size=256M", "domains.0.cpus=" cpus
	REFUSED("processors of this machine", ONE("0-4"));
	REFUSED("processors of this machine", ONE("3-0"));
	REFUSED("processors of this machine", ONE("0-3,"));
	REFUSED("processors of this machine", ONE("-3"));
	REFUSED("processors of this machine", ONE("99999999999999999999"));
	REFUSED("processor 1 is in none", ONE("0,2,3"));
	REFUSED("a size and cpus", "domains.0.cpus=0");
	REFUSED("a size and cpus", "domains.0.size=256M");
	REFUSED("add up to 128 MiB", "domains.0.size=128M", "domains.0.cpus=0");
	REFUSED("without gaps", "domains.1.size=256M", "domains.1.cpus=0");
	REFUSED("in another domain", "cpus=2", "domains.0.size=128M", "domains.0.cpus=0,1",
		"domains.1.size=128M", "domains.1.cpus=1");
	REFUSED("unknown key", "domains.0.policy=x");
#undef ONE
}

static void test_slots(void **state)
{
	struct config *c = WITH("pci.0.0.0.device=hostbridge", "pci.0.31.0.device=lpc");

	must_freeze(c);
	config_destroy(c);
	REFUSED("no device \"nvme\"", "pci.0.3.0.device=nvme", "pci.0.3.0.path=a");
	REFUSED("did you mean \"hostbridge\"?", "pci.0.0.0.device=hostbrige");
	REFUSED("write -s 31,lpc", "pci.0.1.0.device=lpc");
	REFUSED("has keys but no device", "pci.0.3.0.path=a");
	REFUSED("slots go from 0 to 31", "pci.0.32.0.device=lpc");
	REFUSED("functions go from 0 to 7", "pci.0.31.8.device=lpc");
	REFUSED("buses go from 0 to 255", "pci.256.31.0.device=lpc");
	REFUSED("leading zeros", "pci.0.31.00.device=lpc");
	REFUSED("unknown key \"pci.0.31.0.speed\"", "pci.0.31.0.device=lpc", "pci.0.31.0.speed=9");
	REFUSED("unknown key", "pci.x.0.0.device=lpc");
	REFUSED("unknown key", "pci.0.31.device=lpc");
}

static void test_fwcfg(void **state)
{
	struct config *c = WITH("fwcfg.0.name=opt/a", "fwcfg.0.string=", "fwcfg.3.name=opt/b",
				"fwcfg.3.file=/b");

	must_freeze(c);
	assert_string_equal(config_string(config_find(c, "fwcfg.0"), "string"), "");
	config_destroy(c);
	REFUSED("needs a name", "fwcfg.0.string=a");
	REFUSED("either a string or a file", "fwcfg.0.name=a");
	REFUSED("either a string or a file", "fwcfg.0.name=a", "fwcfg.0.string=x", "fwcfg.0.file=x");
}

static void test_expand(void **state)
{
	struct config *c = WITH("name=vm", "boot.cmdline=a%%b %(name) %()%(memory.size)",
				"boot.initrd=/x/%(name)/%(lpc.fwcfg)", "lpc.com1.path=unix=%(boot.initrd)");
	struct config_node *root = config_root(c);

	must_freeze(c);
	assert_string_equal(config_string(root, "boot.cmdline"), "a%b vm 256M");
	assert_string_equal(config_string(root, "lpc.com1.path"), "unix=/x/vm/qemu");
	config_destroy(c);

	/* Types are checked after expansion. */
	c = WITH("boot.initrd=1G", "memory.size=%(boot.initrd)");
	must_freeze(c);
	assert_true(config_uint(config_root(c), "memory.size") == GiB);
	config_destroy(c);
	c = WITH("name=hostbridge", "pci.0.0.0.device=%(name)");
	must_freeze(c);
	config_destroy(c);
	REFUSED("not a size", "name=x", "memory.size=%(name)");
}

static void test_expand_loops(void **state)
{
	struct config *c = config_create();
	struct skep_error e = { "" };
	char key[64], value[128];

	REFUSED("leads back to itself", "name=%(name)");
	REFUSED("leads back to itself", "name=%(boot.cmdline)", "boot.cmdline=%(boot.initrd)",
		"boot.initrd=%(name)");
	REFUSED("not set; did you mean \"name\"?", "boot.cmdline=%(nam)");
	REFUSED("not set", "boot.cmdline=%(boot)");
	REFUSED("without a closing", "boot.cmdline=%(name");
	REFUSED("lone \"%\"", "boot.cmdline=100%");
	REFUSED("lone \"%\"", "boot.cmdline=%d");
	/* Each value is ten times the one before: refused long before memory is short. */
	config_set(c, "fwcfg.0.string", "0123456789", NULL, &e);
	for (int i = 1; i < 20; i++) {
		snprintf(key, sizeof(key), "fwcfg.%d.string", i);
		value[0] = '\0';
		for (int j = 0; j < 4; j++)
			sprintf(value + strlen(value), "%%(fwcfg.%d.string)", i - 1);
		assert_int_equal(config_set(c, key, value, NULL, &e), 0);
	}
	assert_int_equal(config_freeze(c, &e), -E2BIG);
	config_destroy(c);
	/* A row of references that is too long for the stack we allow. */
	c = WITH("fwcfg.0.string=x");
	for (int i = 1; i < 100; i++) {
		snprintf(key, sizeof(key), "fwcfg.%d.string", 100 - i);
		snprintf(value, sizeof(value), "%%(fwcfg.%d.string)", 99 - i);
		assert_int_equal(config_set(c, key, value, NULL, &e), 0);
	}
	config_set(c, "fwcfg.0.string", "x", NULL, &e);
	config_set(c, "boot.cmdline", "%(fwcfg.99.string)", NULL, &e);
	assert_int_equal(config_freeze(c, &e), -ELOOP);
	config_destroy(c);
}

static char *dump(struct config *c)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	assert_non_null(f);
	config_dump(c, f);
	fclose(f);
	return text;
}

static char *write_file(const char *text)
{
	static char path[64];
	int fd;

	strcpy(path, "/tmp/skep-test-config-XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
	return path;
}

static void test_dump_reload(void **state)
{
	struct config *c = WITH("name=vm", "memory.size=1G", "boot.cmdline= a=b  #x %% %(name) ",
				"lpc.com1.path=tcp=127.0.0.1:1", "pci.0.31.0.device=lpc",
				"fwcfg.10.name=z", "fwcfg.10.string=\r%%(\t", "fwcfg.9.name=\\ \"q\"",
				"fwcfg.9.string=", "config.dump=true", "cores=2");
	struct config *c2 = config_create();
	struct skep_error e = { "" };
	char *first, *second, *path;

	must_freeze(c);
	first = dump(c);
	path = write_file(first);
	if (config_load_file(c2, path, &e))
		fail_msg("%s", e.text);
	unlink(path);
	must_freeze(c2);
	second = dump(c2);
	assert_string_equal(first, second);
	assert_string_equal(config_string(config_root(c2), "boot.cmdline"), " a=b  #x % vm ");
	assert_string_equal(config_string(config_root(c2), "fwcfg.10.string"), "\r%(\t");
	assert_int_equal(config_uint(config_root(c2), "cpus"), 2);
	assert_false(config_bool(config_root(c2), "config.dump"));
	free(first);
	free(second);
	config_destroy(c);
	config_destroy(c2);
}

static void test_file(void **state)
{
	char *path = write_file("# a comment\n\n  name = vm one \r\nmemory.size=64M\n"
				"\t# another\nboot.cmdline=x=y # not a comment");
	struct config *c = config_create();
	struct skep_error e = { "" };

	if (config_load_file(c, path, &e))
		fail_msg("%s", e.text);
	unlink(path);
	must_freeze(c);
	assert_string_equal(config_string(config_root(c), "name"), "vm one");
	assert_string_equal(config_string(config_root(c), "boot.cmdline"), "x=y # not a comment");
	config_destroy(c);
}

/* The sentence names the file and the line, also when the error shows at freeze only. */
static void test_file_errors(void **state)
{
	static const struct { const char *text; int line; const char *words; } bad[] = {
		{ "name=a\nhello\n", 2, "neither key=value nor" },
		{ "\n\nmemory.size=x\n", 3, "not a size" },
		{ "name=a\nmemory.siz=1G\n", 2, "did you mean" },
		{ "=x\n", 1, "is not a key" },
		{ "name=%(nobody)", 1, "not set" },
	};
	struct skep_error e = { "" };

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		char *path = write_file(bad[i].text), want[128];
		struct config *c = config_create();
		int ret = config_load_file(c, path, &e);

		if (!ret)
			ret = config_freeze(c, &e);
		assert_true(ret < 0);
		snprintf(want, sizeof(want), "%s:%d: ", path, bad[i].line);
		if (strncmp(e.text, want, strlen(want)) || !strstr(e.text, bad[i].words))
			fail_msg("\"%s\": want \"%s...%s\"", e.text, want, bad[i].words);
		unlink(path);
		config_destroy(c);
	}
	struct config *c = config_create();
	assert_int_equal(config_load_file(c, "/nonexistent/skep.conf", &e), -ENOENT);
	assert_non_null(strstr(e.text, "/nonexistent/skep.conf"));
	assert_true(config_load_file(c, "/", &e) < 0);
	config_destroy(c);
}

static void test_long_line(void **state)
{
	size_t len = 70000;
	char *text = malloc(len + 16), *path;
	struct config *c = config_create();
	struct skep_error e = { "" };

	strcpy(text, "name=");
	memset(text + 5, 'a', len);
	text[5 + len] = '\0';
	path = write_file(text);
	assert_true(config_load_file(c, path, &e) < 0);
	unlink(path);
	free(text);
	config_destroy(c);
}

/* Every key of the schema has help, and its default is a value of its type. */
static void test_schema_sound(void **state)
{
	struct skep_error e = { "" };

	for (size_t i = 0; i < config_vm_schema.nkeys; i++) {
		const struct config_key *k = &config_vm_schema.keys[i];

		assert_non_null(k->help);
		if (k->def && value_parse(k, k->name, k->def, NULL, &e))
			fail_msg("%s", e.text);
		for (size_t j = 0; j < i; j++)
			assert_string_not_equal(k->name, config_vm_schema.keys[j].name);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes), cmocka_unit_test(test_size_text),
		cmocka_unit_test(test_booleans), cmocka_unit_test(test_uuid),
		cmocka_unit_test(test_defaults), cmocka_unit_test(test_later_wins),
		cmocka_unit_test(test_frozen), cmocka_unit_test(test_refused_then_corrected),
		cmocka_unit_test(test_natural_order), cmocka_unit_test(test_nearest),
		cmocka_unit_test(test_bad_keys), cmocka_unit_test(test_bad_values),
		cmocka_unit_test(test_not_built), cmocka_unit_test(test_topology), cmocka_unit_test(test_domains),
		cmocka_unit_test(test_slots), cmocka_unit_test(test_fwcfg),
		cmocka_unit_test(test_expand), cmocka_unit_test(test_expand_loops),
		cmocka_unit_test(test_dump_reload), cmocka_unit_test(test_file),
		cmocka_unit_test(test_file_errors), cmocka_unit_test(test_long_line),
		cmocka_unit_test(test_schema_sound),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
