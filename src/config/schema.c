/*
 * The keys of the machine as a whole, and which schema stands at which place
 * of the tree.  A device's own keys are declared by its device type.
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "clock/paravirt.h"
#include "config/internal.h"
#include "config/nearest.h"
#include "vm/device.h"

static const char *const clock_modes[] = { "realtime", "virtual", NULL };
static const char *const reboot_actions[] = { "exit", "restart", NULL };
static const char *const triple_fault_actions[] = { "exit", "reset", NULL };
static const char *const backends[] = { "auto", "soft", "kvm", NULL };
static const char *const soft_tiers[] = { "auto", "interpreter", "translator", NULL };
static const char *const cpu_models[] = { "skep-v1.1", "skep-v2.1", "skep-v3.1", NULL };
static const char *const control_kinds[] = { "auto", "none", NULL };
static const char *const fwcfg_kinds[] = { "qemu", "bhyve", NULL };

static const struct config_key vm_keys[] = {
	{ "name", CONFIG_STRING, .def = "skep", .help = "the machine's name" },
	{ "uuid", CONFIG_UUID, .help = "SMBIOS UUID; unset: random, or from the seed with "
	  "clock.mode=virtual" },
	{ "cpus", CONFIG_UINT, .min = 1, .max = 64, .help = "virtual processors; unset: sockets "
	  "times cores times threads, or 1" },
	{ "sockets", CONFIG_UINT, .min = 1, .max = 64, .help = "processor packages; unset: "
	  "cpus divided by cores and threads" },
	{ "cores", CONFIG_UINT, .def = "1", .min = 1, .max = 64, .help = "cores in a package" },
	{ "threads", CONFIG_UINT, .def = "1", .min = 1, .max = 64, .help = "threads in a core" },
	{ "cpu.model", CONFIG_CHOICE, .def = "skep-v2.1", .choices = cpu_models,
	  .help = "what CPUID tells, a contract that never changes under its name" },
	{ "identity", CONFIG_CHOICE, .def = "none", .choices = identity_names,
	  .help = "the hypervisor that CPUID names, with its clocks; none: skep, without any" },
	{ "backend", CONFIG_CHOICE, .def = "auto", .choices = backends,
	  .help = "what executes the guest: soft, kvm, or auto: KVM where it is fast and complete" },
	{ "kvm.help", CONFIG_BOOL, .def = "true", .help = "backend=kvm: what KVM cannot execute, the soft "
	  "processor does, one instruction at a time; false: the machine ends with an error" },
	{ "soft.tier", CONFIG_CHOICE, .def = "auto", .choices = soft_tiers,
	  .help = "how the soft processor runs code: interpreter; translator: everything is translated "
	  "for the host, at once; auto: what runs often" },
	{ "memory.size", CONFIG_SIZE, .def = "256M", .min = 4 * MiB, .max = 512 * GiB,
	  .unit = MiB, .help = "guest memory; a bare number counts MiB" },
	{ "memory.wired", CONFIG_BOOL, .def = "false", .help = "lock guest memory (not built yet)" },
	{ "boot.kernel", CONFIG_PATH, .help = "Linux bzImage, PVH or multiboot ELF" },
	{ "boot.initrd", CONFIG_PATH, .help = "initial RAM disk for the kernel" },
	{ "boot.cmdline", CONFIG_STRING, .help = "kernel command line" },
	{ "boot.demo", CONFIG_BOOL, .def = "false", .help = "start the guest that is built in" },
	{ "clock.mode", CONFIG_CHOICE, .def = "realtime", .choices = clock_modes,
	  .help = "virtual: guest time is instructions executed, and a run is deterministic" },
	{ "clock.insn_ps", CONFIG_UINT, .def = "1000", .min = 1, .max = 1000000000,
	  .help = "clock.mode=virtual: picoseconds an instruction takes" },
	{ "clock.start", CONFIG_UINT, .max = 4611686018, .help = "wall clock at power-on, in "
	  "seconds since 1970 UTC; unset: the host's, or a fixed date with clock.mode=virtual" },
	{ "clock.limit", CONFIG_UINT, .help = "clock.mode=virtual: end with 2 after this "
	  "many instructions" },
	{ "clock.tsc_khz", CONFIG_UINT, .min = 1000, .max = 10000000, .help = "frequency of the "
	  "time-stamp counter; unset: 1000000, or the host's with backend=kvm" },
	{ "seed", CONFIG_UINT, .help = "where all randomness comes from; unset: the host, "
	  "or 0 with clock.mode=virtual" },
	{ "input.record", CONFIG_PATH, .help = "clock.mode=virtual: write what comes from outside "
	  "to this file" },
	{ "input.replay", CONFIG_PATH, .help = "clock.mode=virtual: take input from such a file "
	  "only" },
	{ "control", CONFIG_CHOICE, .def = "auto", .choices = control_kinds,
	  .help = "auto: a control socket in the runtime directory, and no second machine of the "
	  "name; none: neither" },
	{ "on_reboot", CONFIG_CHOICE, .def = "exit", .choices = reboot_actions,
	  .help = "exit: the command ends with 0; restart: boot again in place" },
	{ "destroy_on_poweroff", CONFIG_BOOL, .def = "true",
	  .help = "always true: a machine never outlives its process" },
	{ "lpc.fwcfg", CONFIG_CHOICE, .def = "qemu", .choices = fwcfg_kinds,
	  .help = "firmware configuration interface; bhyve's own is not built" },
	{ "rtc.use_localtime", CONFIG_BOOL, .def = "false", .help = "the real-time clock keeps "
	  "local time, not UTC (not built yet)" },
	{ "acpi_tables", CONFIG_BOOL, .def = "true", .help = "always true" },
	{ "acpi_tables_in_memory", CONFIG_BOOL, .def = "true", .help = "always true" },
	{ "x86.mptable", CONFIG_BOOL, .def = "false", .help = "MP table (not built)" },
	{ "x86.x2apic", CONFIG_BOOL, .def = "true", .help = "always true: the guest may switch" },
	{ "x86.strictio", CONFIG_BOOL, .def = "false", .help = "stop at an access to a port that "
	  "nothing answers (not built yet)" },
	{ "x86.strictmsr", CONFIG_BOOL, .def = "true", .help = "always true: an unknown MSR "
	  "raises #GP" },
	{ "x86.vmexit_on_hlt", CONFIG_BOOL, .def = "true", .help = "always true: HLT yields the "
	  "host's processor" },
	{ "x86.vmexit_on_pause", CONFIG_BOOL, .def = "true", .help = "always true: PAUSE is ours" },
	{ "x86.triple_fault", CONFIG_CHOICE, .def = "exit", .choices = triple_fault_actions,
	  .help = "exit: the command ends with 3; reset: as the reset line" },
	{ "clone", CONFIG_UINT, .min = 1, .help = "set by skep clone: the clone's number, for %(clone) "
	  "in other values" },
	{ "config.dump", CONFIG_BOOL, .def = "false", .help = "print the configuration as a file "
	  "that loads again, and exit" },
};

const struct config_schema config_vm_schema = { vm_keys, ARRAY_SIZE(vm_keys) };

#define NOT_BUILT(what) what " not built yet; leave the key out"

static const struct config_limit limits[] = {
	{ "memory.wired", "false", NOT_BUILT("locked guest memory is") },
	{ "memory.guest_in_core", NULL, NOT_BUILT("choosing what core files hold is") },
	{ "destroy_on_poweroff", "true", "a machine never outlives its process here; leave the key "
	  "out" },
	{ "rtc.use_localtime", "false", NOT_BUILT("a real-time clock in local time is") },
	{ "lpc.fwcfg", "qemu", "only QEMU's interface is built, which the firmware packages speak; "
	  "write qemu" },
	{ "lpc.bootrom", NULL, NOT_BUILT("firmware is") },
	{ "lpc.bootvars", NULL, NOT_BUILT("firmware variables are") },
	{ "lpc.pc-testdev", NULL, NOT_BUILT("the PC test device is") },
	{ "bootrom", NULL, NOT_BUILT("firmware is") },
	{ "tpm.*", NULL, NOT_BUILT("the TPM is") },
	{ "gdb.*", NULL, NOT_BUILT("the debugger's port is") },
	{ "keyboard.*", NULL, "there is no keyboard to lay out yet; leave the key out" },
	{ "virtio_msix", NULL, "virtio devices have MSI-X, as VIRTIO 1.2 wants it; pci=nomsi makes a Linux guest do "
	  "without; leave the key out" },
	{ "vcpu.*", NULL, NOT_BUILT("pinning processors is") },
	{ "monitor_mode", NULL, NOT_BUILT("the monitor mode is") },
	{ "acpi_tables", "true", "the machine always has ACPI tables; leave the key out" },
	{ "acpi_tables_in_memory", "true", "the tables are always put in memory on direct boot; "
	  "leave the key out" },
	{ "x86.mptable", "false", "an MP table is not built; the machine is described by ACPI" },
	{ "x86.x2apic", "true", "the local APIC starts in xAPIC mode and always offers x2APIC; "
	  "leave the key out" },
	{ "x86.strictio", "false", NOT_BUILT("stopping at unknown ports is") },
	{ "x86.strictmsr", "true", "unknown MSRs always raise #GP; leave the key out" },
	{ "x86.verbosemsr", NULL, NOT_BUILT("a log of MSR accesses is") },
	{ "x86.vmexit_on_hlt", "true", "HLT always yields the host's processor; leave the key out" },
	{ "x86.vmexit_on_pause", "true", "PAUSE is always ours to see; leave the key out" },
};

const struct config_limit *schema_limit(const char *path)
{
	for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
		size_t len = strlen(limits[i].key);

		if (limits[i].key[len - 1] == '*' ? !strncmp(path, limits[i].key, len - 1) :
		    !strcmp(path, limits[i].key))
			return &limits[i];
	}
	return NULL;
}

static const struct config_key fwcfg_keys[] = {
	{ "name", CONFIG_STRING, .help = "name of a file in the guest's fw_cfg directory, such as "
	  "opt/org.example/token" },
	{ "string", CONFIG_STRING, .help = "its content as text" },
	{ "file", CONFIG_PATH, .help = "its content from a host file" },
};
static const struct config_schema fwcfg_schema = { fwcfg_keys, ARRAY_SIZE(fwcfg_keys) };

static const struct config_key domain_keys[] = {
	{ "size", CONFIG_SIZE, .min = MiB, .max = 512 * GiB, .unit = MiB, .help = "memory of this NUMA domain; "
	  "all of them together are memory.size" },
	{ "cpus", CONFIG_STRING, .help = "its processors, as in 0-1,3" },
};
static const struct config_schema domain_schema = { domain_keys, ARRAY_SIZE(domain_keys) };

static const struct config_key slot_keys[] = {
	{ "device", CONFIG_STRING, .help = "the device type in this slot" },
};
static const struct config_schema slot_schema = { slot_keys, ARRAY_SIZE(slot_keys) };

const struct config_place config_places[] = {
	{ .pattern = "lpc", .type = "debug-exit" },
	{ .pattern = "lpc.com1", .type = "uart" },
	{ .pattern = "lpc.com2", .type = "uart" },
	{ .pattern = "lpc.com3", .type = "uart" },
	{ .pattern = "lpc.com4", .type = "uart" },
	{ .pattern = "fwcfg.#", .schema = &fwcfg_schema },
	{ .pattern = "domains.#", .schema = &domain_schema },
	{ .pattern = "pci.#.#.#", .schema = &slot_schema, .by_device = true },
	{ .pattern = NULL },
};

/* What a PCI slot may hold.  Chips of the board have their places. */
const struct config_slot_type config_slot_types[] = {
	{ "hostbridge", 0, 0, 0, NULL, "the host bridge, 8086:29c0; always at 0:0.0" },
	{ "lpc", 0, 31, 0, NULL, "the LPC bridge, 8086:2918; always at 0:31.0" },
	{ "virtio-blk", -1, -1, -1, "path", "disk: virtio-blk,FILE[,ro][,overlay=FILE]" },
	{ "virtio-rnd", -1, -1, -1, NULL, "entropy source" },
	{ "virtio-balloon", -1, -1, -1, NULL, "memory balloon; saves skip what the guest does not use" },
	{ "virtio-net", -1, -1, -1, "backend", "network interface (VIRTIO 1.2, 5.1): slirp, tapN, "
	  "unix:/path" },
	{ "virtio-console", -1, -1, -1, NULL, "consoles and byte channels (VIRTIO 1.2, 5.3): "
	  "port.0.path=pty" },
	{ "virtio-vsock", -1, -1, -1, "path", "stream sockets between guest and host (VIRTIO 1.2, "
	  "5.10): path=,cid=" },
	{ "virtio-9p", -1, -1, -1, NULL, "a directory of the host by 9P: NAME=/directory[,ro]" },
	{ .name = NULL },
};

const struct config_slot_type *schema_slot_type(const char *name)
{
	for (const struct config_slot_type *t = config_slot_types; t->name; t++)
		if (!strcmp(t->name, name))
			return t;
	return NULL;
}

static bool component_matches(const char *pattern, size_t plen, const char *name)
{
	if (plen == 1 && *pattern == '#')
		return *name && strspn(name, "0123456789") == strlen(name);
	return strlen(name) == plen && !memcmp(name, pattern, plen);
}


/* Does the pattern describe exactly the node? */
static bool place_matches(const char *pattern, struct config_node *n)
{
	size_t len = strlen(pattern);

	/* From the last component to the first. */
	while (len && n->parent) {
		size_t start = len;

		while (start && pattern[start - 1] != '.')
			start--;
		if (!component_matches(pattern + start, len - start, n->name))
			return false;
		len = start ? start - 1 : 0;
		n = n->parent;
	}
	return !len && !n->parent;
}

const struct config_place *schema_place(struct config_node *n, struct config_node **at)
{
	for (; n->parent; n = n->parent)
		for (const struct config_place *p = config_places; p->pattern; p++)
			if (place_matches(p->pattern, n)) {
				*at = n;
				return p;
			}
	return NULL;
}

const struct config_schema *schema_device(const struct config_place *p, struct config_node *at)
{
	const char *type = p->by_device ? config_string(at, "device") : p->type;

	for (size_t i = 0; type && device_types[i]; i++)
		if (!strcmp(device_types[i]->name, type))
			return device_types[i]->config;
	return NULL;
}

static const struct config_key *find_key(const struct config_schema *s, const char *name)
{
	for (size_t i = 0; s && i < s->nkeys; i++)
		if (!strcmp(s->keys[i].name, name))
			return &s->keys[i];
	return NULL;
}

const struct config_key *schema_key(struct config_node *n)
{
	const struct config_key *k = find_key(&config_vm_schema, n->path);
	const struct config_place *p;
	struct config_node *at;

	if (k)
		return k;
	p = schema_place(n, &at);
	if (!p || at == n)
		return NULL;
	k = find_key(p->schema, n->path + strlen(at->path) + 1);
	return k ? k : find_key(schema_device(p, at), n->path + strlen(at->path) + 1);
}

static void each_key(const char *prefix, const struct config_schema *s,
		     void (*fn)(void *opaque, const char *path), void *opaque)
{
	char path[CONFIG_PATH_MAX * 2];

	for (size_t i = 0; s && i < s->nkeys; i++) {
		snprintf(path, sizeof(path), "%s%s%s", prefix, *prefix ? "." : "",
			 s->keys[i].name);
		fn(opaque, path);
	}
}

void schema_each_near(struct config_node *n, void (*fn)(void *opaque, const char *path),
		      void *opaque)
{
	struct config_node *at;
	const struct config_place *here = schema_place(n, &at);

	each_key("", &config_vm_schema, fn, opaque);
	for (const struct config_place *p = config_places; p->pattern; p++)
		if (!strchr(p->pattern, '#')) {
			each_key(p->pattern, p->schema, fn, opaque);
			each_key(p->pattern, schema_device(p, NULL), fn, opaque);
		}
	if (here) {
		each_key(at->path, here->schema, fn, opaque);
		each_key(at->path, schema_device(here, at), fn, opaque);
	}
}

static int fail_device(const struct config_node *at, const char *name, struct skep_error *e)
{
	char list[256] = "", hint[160];
	struct nearest near;
	size_t len = 0;

	nearest_init(&near, name);
	for (const struct config_slot_type *t = config_slot_types; t->name; t++) {
		nearest_offer(&near, t->name);
		len += snprintf(list + len, sizeof(list) - len, "%s%s", len ? ", " : "", t->name);
		len = MIN(len, sizeof(list) - 1);
	}
	return skep_fail(e, ENODEV, "%s.device: there is no device \"%s\"%s (built so far: %s)",
			 at->path, name, nearest_hint(&near, hint, sizeof(hint)), list);
}

static int check_slot(struct config_node *at, struct skep_error *e)
{
	static const unsigned limit[3] = { 255, 31, 7 };
	static const char *const what[3] = { "buses", "slots", "functions" };
	const struct config_slot_type *t;
	const char *device = config_string(at, "device");
	struct config_node *part[3] = { at->parent->parent, at->parent, at };
	unsigned where[3];

	for (int i = 0; i < 3; i++) {
		uint64_t v;

		if (value_parse_uint(part[i]->name, &v) || v > limit[i])
			return skep_fail(e, EINVAL, "%s: %s go from 0 to %u", at->path, what[i],
					 limit[i]);
		if (part[i]->name[0] == '0' && part[i]->name[1])
			return skep_fail(e, EINVAL, "%s: write the number %" PRIu64
					 " without leading zeros", at->path, v);
		where[i] = v;
	}
	if (!device)
		return skep_fail(e, EINVAL, "%s has keys but no device; set %s.device", at->path,
				 at->path);
	t = schema_slot_type(device);
	if (!t)
		return fail_device(at, device, e);
	if (t->slot >= 0 && (where[0] != (unsigned)t->bus || where[1] != (unsigned)t->slot ||
			     where[2] != (unsigned)t->func))
		return skep_fail(e, EINVAL, "%s.device: this board has its %s at %d:%d.%d; write "
				 "-s %d,%s", at->path, t->name, t->bus, t->slot, t->func, t->slot,
				 t->name);
	for (t = config_slot_types; t->name; t++)
		if (t->slot >= 0 && where[0] == (unsigned)t->bus && where[1] == (unsigned)t->slot &&
		    where[2] == (unsigned)t->func && strcmp(t->name, device))
			return skep_fail(e, EBUSY, "%s.device: %s is the place of the board's own %s; "
					 "choose another slot for %s", at->path, at->path + 4, t->name,
					 device);
	return 0;
}

static int check_fwcfg(struct config_node *at, struct skep_error *e)
{
	const char *name = config_string(at, "name");
	bool text = config_is_set(at, "string"), file = config_is_set(at, "file");

	if (!name || !*name)
		return skep_fail(e, EINVAL, "%s.name: a fw_cfg file needs a name", at->path);
	if (strlen(name) > 55)
		return skep_fail(e, EINVAL, "%s.name: \"%s\" is longer than 55 characters", at->path,
				 name);
	if (text == file)
		return skep_fail(e, EINVAL, "%s: \"%s\" needs either a string or a file", at->path,
				 name);
	return 0;
}

int schema_check_places(struct config *c, struct skep_error *e)
{
	for (struct config_node *n = &c->root; n; n = tree_next(n)) {
		struct config_node *at;
		const struct config_place *p = schema_place(n, &at);
		int ret = 0;

		if (!p || at != n)
			continue;
		if (p->by_device)
			ret = check_slot(n, e);
		else if (p->schema == &fwcfg_schema)
			ret = check_fwcfg(n, e);
		if (ret) {
			struct config_node *dev = n->first;

			if (p->by_device && tree_find(n, "device"))
				dev = tree_find(n, "device");
			if (dev && dev->origin && *dev->origin)
				skep_error_prefix(e, "%s", dev->origin);
			return ret;
		}
	}
	return 0;
}

/* cpus and sockets follow from each other where only one is given. */
int schema_check_topology(struct config *c, uint64_t *cpus, uint64_t *sockets,
			  struct skep_error *e)
{
	struct config_node *root = &c->root;
	uint64_t cores = config_uint(root, "cores"), threads = config_uint(root, "threads");

	*cpus = config_uint(root, "cpus");
	*sockets = config_uint(root, "sockets");
	if (!*cpus)
		*cpus = (*sockets ? *sockets : 1) * cores * threads;	/* each is at most 64 */
	if (!*sockets)
		*sockets = MAX(*cpus / (cores * threads), (uint64_t)1);
	if (*cpus > 64)
		return skep_fail(e, EINVAL, "cpus: %" PRIu64 " sockets of %" PRIu64 " cores of %" PRIu64
				 " threads are more than 64 processors", *sockets, cores, threads);
	if (*sockets * cores * threads != *cpus)
		return skep_fail(e, EINVAL, "cpus: %" PRIu64 " processors are not %" PRIu64
				 " sockets of %" PRIu64 " cores of %" PRIu64 " threads", *cpus,
				 *sockets, cores, threads);
	return 0;
}

/* Keys that would be ignored while guest time follows the host's. */
static const char *const virtual_only[] = { "clock.insn_ps", "clock.limit", "input.record",
					    "input.replay" };

int schema_check_clock(struct config *c, struct skep_error *e)
{
	struct config_node *root = &c->root;

	if (config_is_set(root, "input.record") && config_is_set(root, "input.replay"))
		return skep_fail(e, EINVAL, "input.record and input.replay exclude each other: a replay "
				 "has its input recorded already");
	if (!strcmp(config_string(root, "clock.mode"), "virtual"))
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(virtual_only); i++) {
		struct config_node *n = tree_find(root, virtual_only[i]);

		if (n && n->raw && !n->is_default &&
		    strcmp(n->value, n->key->def ? n->key->def : ""))
			return skep_fail(e, EINVAL, "%s: %s has a meaning with clock.mode=virtual only; "
					 "set that too", n->origin, n->path);
	}
	return 0;
}

/* It will name sockets and files of the host. */
int schema_check_name(struct config *c, struct skep_error *e)
{
	const char *name = config_string(&c->root, "name");

	if (!*name || strlen(name) > 63 || strchr(name, '/') || *name == '.')
		return skep_fail(e, EINVAL, "name: \"%.80s\" cannot name a machine; choose 1 to 63 "
				 "characters without a slash, and not a dot first", name);
	for (const char *p = name; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			return skep_fail(e, EINVAL, "name: a control character in a machine's name; "
					 "choose another name");
	return 0;
}

int schema_check_backend(struct config *c, struct skep_error *e)
{
	struct config_node *n = tree_find(&c->root, "backend"), *mode = tree_find(&c->root, "clock.mode");
	struct config_node *identity = tree_find(&c->root, "identity");

	if (strcmp(n->value, "kvm"))
		return 0;
	if (identity && !strcmp(identity->value, "hyperv"))
		return skep_fail(e, EINVAL, "%s: identity=hyperv is not built for backend=kvm yet; write "
				 "backend=soft, or another identity", identity->origin);
	if (!mode || strcmp(mode->value, "virtual"))
		return 0;
	return skep_fail(e, EINVAL, "%s: clock.mode=virtual counts instructions, which backend=kvm cannot do; "
			 "write backend=soft", n->origin);
}

int schema_check_memory(struct config *c, struct skep_error *e)
{
	uint64_t size = config_uint(&c->root, "memory.size");

	if (size % 4096)
		return skep_fail(e, EINVAL, "memory.size: %" PRIu64 " bytes is not a multiple of 4K",
				 size);
	return 0;
}
