/* -s, -l, -f and -c, as bhyve(8) writes them, into keys of the configuration. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "char/char.h"
#include "config/config.h"
#include "config/nearest.h"
#include "cli/cli.h"
#include "net/net.h"
#include "vm/device.h"

#define WORD_ROOM 4096

/* Takes the next comma-separated word off *p; NULL after the last. */
static char *next_word(char **p)
{
	return *p ? strsep(p, ",") : NULL;
}

static int set(struct config *c, const char *path, const char *key, const char *value,
	       const char *origin, struct skep_error *e)
{
	char full[512];

	snprintf(full, sizeof(full), "%.200s%s%.200s", path, *path ? "." : "", key);
	return config_set(c, full, value, origin, e);
}

static int copy_arg(const char *flag, const char *arg, char **copy, struct skep_error *e)
{
	if (strlen(arg) >= WORD_ROOM)
		return skep_fail(e, E2BIG, "%s: an argument of %zu characters is too long", flag,
				 strlen(arg));
	*copy = strdup(arg);
	return *copy ? 0 : skep_fail(e, ENOMEM, "out of memory");
}

/* "slot", "slot:func" or "bus:slot:func", in decimal. */
static int parse_place(const char *text, unsigned place[3])
{
	unsigned v[3], n = 0;

	for (const char *p = text; ; p++) {
		char *end;
		unsigned long x;

		if (n == 3 || *p < '0' || *p > '9')
			return -EINVAL;
		x = strtoul(p, &end, 10);
		if (x > 255)
			return -EINVAL;
		v[n++] = x;
		p = end;
		if (!*p)
			break;
		if (*p != ':')
			return -EINVAL;
	}
	place[0] = n == 3 ? v[0] : 0;
	place[1] = n == 3 ? v[1] : v[0];
	place[2] = n == 3 ? v[2] : n == 2 ? v[1] : 0;
	return 0;
}

static const struct config_slot_type *find_slot_type(const char *name)
{
	for (const struct config_slot_type *t = config_slot_types; t->name; t++)
		if (!strcmp(t->name, name))
			return t;
	return NULL;
}

/* Is [word, end) a key of this device? */
static bool slot_key(const char *device, const char *word, const char *end)
{
	size_t len = (size_t)(end - word);

	for (size_t i = 0; device_types[i]; i++) {
		const struct config_schema *s = device_types[i]->config;

		for (size_t k = 0; !strcmp(device_types[i]->name, device) && k < s->nkeys; k++)
			if (strlen(s->keys[k].name) == len && !memcmp(s->keys[k].name, word, len))
				return true;
	}
	return false;
}

/* What follows the emulation: key=value, or a bare word. */
static int slot_conf(struct config *c, const char *node, const char *device, char *rest,
		     const char *origin, struct skep_error *e)
{
	const struct config_slot_type *t = find_slot_type(device);
	bool first = true;

	/* A device that does not exist has no keys; config_freeze refuses it by name. */
	for (char *word; t && (word = next_word(&rest)); first = false) {
		char *eq = strchr(word, '=');
		int ret;

		if (!*word)
			continue;
		/* A path or URI may have a '=' in it; no key has a slash. */
		if (eq && memchr(word, '/', (size_t)(eq - word)))
			eq = NULL;
		if (eq && first && !strcmp(device, "virtio-9p") && !slot_key(device, word, eq)) {
			/* bhyve's: the first word is the share, NAME=/directory. */
			*eq = '\0';
			ret = set(c, node, "sharename", word, origin, e);
			if (!ret)
				ret = set(c, node, "path", eq + 1, origin, e);
		} else if (!eq && first && t->positional) {
			ret = set(c, node, t->positional, word, origin, e);
		} else if (!eq && !t->positional && !slot_key(device, word, word + strlen(word))) {
			return skep_fail(e, EINVAL, "%s: %s takes no \"%s\"", origin, device, word);
		} else {
			if (eq)
				*eq = '\0';
			ret = set(c, node, word, eq ? eq + 1 : "true", origin, e);
		}
		if (ret)
			return ret;
	}
	return 0;
}

int slot_parse(struct config *c, const char *arg, struct skep_error *e)
{
	char *copy, *rest, *place, *device, node[64], origin[128];
	unsigned at[3];
	int ret = copy_arg("-s", arg, &copy, e);

	if (ret)
		return ret;
	snprintf(origin, sizeof(origin), "-s %.100s", arg);
	rest = copy;
	place = next_word(&rest);
	device = next_word(&rest);
	if (parse_place(place, at)) {
		ret = skep_fail(e, EINVAL, "-s %.100s: \"%.40s\" is not a slot; write slot, slot:func "
				"or bus:slot:func in front of the device, as in -s 0,hostbridge", arg,
				place);
	} else if (!device || !*device) {
		ret = skep_fail(e, EINVAL, "-s %.100s: which device? write -s %.40s,DEVICE; -s help "
				"lists them", arg, place);
	} else {
		snprintf(node, sizeof(node), "pci.%u.%u.%u", at[0], at[1], at[2]);
		ret = set(c, node, "device", device, origin, e);
		if (!ret)
			ret = slot_conf(c, node, device, rest, origin, e);
	}
	free(copy);
	return ret;
}

struct lpc_device {
	const char *name;	/* as -l has it */
	const char *key;	/* what the word after the comma sets */
	const char *def;	/* the value when there is none; NULL: one is needed */
	const char *metavar, *help;
};

static const struct lpc_device lpc_devices[] = {
	{ "com1", "lpc.com1.path", NULL, "BACKEND", "serial port at 0x3f8, IRQ 4" },
	{ "com2", "lpc.com2.path", NULL, "BACKEND", "serial port at 0x2f8, IRQ 3" },
	{ "com3", "lpc.com3.path", NULL, "BACKEND", "serial port at 0x3e8, IRQ 4" },
	{ "com4", "lpc.com4.path", NULL, "BACKEND", "serial port at 0x2e8, IRQ 3" },
	{ "fwcfg", "lpc.fwcfg", NULL, "qemu", "firmware configuration interface" },
	{ "debug-exit", "lpc.debug_exit", "true", NULL, "the exit port of test kernels, 0xf4" },
	/* Known to bhyve, refused by the configuration with a sentence. */
	{ "bootrom", "lpc.bootrom", NULL, NULL, NULL },
	{ "tpm", "tpm.type", NULL, NULL, NULL },
	{ "pc-testdev", "lpc.pc-testdev", "true", NULL, NULL },
};

static int fail_lpc(const char *arg, const char *name, struct skep_error *e)
{
	struct nearest near;
	char hint[160];

	nearest_init(&near, name);
	for (size_t i = 0; i < ARRAY_SIZE(lpc_devices); i++)
		if (lpc_devices[i].help)
			nearest_offer(&near, lpc_devices[i].name);
	nearest_hint(&near, hint, sizeof(hint));
	return skep_fail(e, ENODEV, "-l %.100s: there is no LPC device \"%.40s\"%s", arg, name,
			 *hint ? hint : "; -l help lists them");
}

int lpc_parse(struct config *c, const char *arg, struct skep_error *e)
{
	char name[64], origin[128];
	size_t len = strcspn(arg, ",");
	const char *conf = arg[len] ? arg + len + 1 : NULL;

	snprintf(name, sizeof(name), "%.*s", (int)MIN(len, sizeof(name)), arg);
	snprintf(origin, sizeof(origin), "-l %.100s", arg);
	for (size_t i = 0; i < ARRAY_SIZE(lpc_devices); i++) {
		const struct lpc_device *d = &lpc_devices[i];

		if (strcmp(d->name, name))
			continue;
		if (!conf || !*conf)
			conf = d->def;
		/* One that is refused anyhow need not be complete. */
		if (!conf && d->help)
			return skep_fail(e, EINVAL, "-l %s: connected to what? write -l %s,%s; "
					 "-l help explains", arg, name, d->metavar);
		return config_set(c, d->key, conf ? conf : "", origin, e);
	}
	return fail_lpc(arg, name, e);
}

/* name,string=text or name,file=path; the text may hold commas. */
int fwcfg_parse(struct config *c, const char *arg, struct skep_error *e)
{
	const char *comma = strchr(arg, ','), *key = NULL, *value = NULL;
	char node[32], name[64], origin[128];
	unsigned n = 0;
	int ret;

	if (comma && !strncmp(comma, ",string=", 8)) {
		key = "string";
		value = comma + 8;
	} else if (comma && !strncmp(comma, ",file=", 6)) {
		key = "file";
		value = comma + 6;
	} else {
		return skep_fail(e, EINVAL, "-f %.100s: write -f name,string=TEXT or -f name,file=PATH",
				 arg);
	}
	if ((size_t)(comma - arg) >= sizeof(name))
		return skep_fail(e, EINVAL, "-f %.100s: the name is longer than 55 characters", arg);
	snprintf(name, sizeof(name), "%.*s", (int)(comma - arg), arg);
	snprintf(origin, sizeof(origin), "-f %.100s", arg);
	do
		snprintf(node, sizeof(node), "fwcfg.%u", n++);
	while (config_find(c, node));
	ret = set(c, node, "name", name, origin, e);
	return ret ? ret : set(c, node, key, value, origin, e);
}

/* [cpus=]n[,sockets=n][,cores=n][,threads=n] */
int cpus_parse(struct config *c, const char *arg, struct skep_error *e)
{
	static const char *const keys[] = { "cpus", "sockets", "cores", "threads" };
	char *copy, *rest, *word, origin[128];
	int ret = copy_arg("-c", arg, &copy, e);

	if (ret)
		return ret;
	snprintf(origin, sizeof(origin), "-c %.100s", arg);
	rest = copy;
	while (!ret && (word = next_word(&rest))) {
		char *eq = strchr(word, '=');
		size_t i = 0;

		if (eq) {
			*eq = '\0';
			while (i < ARRAY_SIZE(keys) && strcmp(keys[i], word))
				i++;
		}
		if (i == ARRAY_SIZE(keys))
			ret = skep_fail(e, EINVAL, "-c %.100s: \"%.40s\" is none of cpus, sockets, "
					"cores, threads", arg, word);
		else
			ret = config_set(c, keys[i], eq ? eq + 1 : word, origin, e);
	}
	free(copy);
	return ret;
}

/* The key of a word of -n; what has none goes on with the processors before it, as in cpus=0,2. */
static int domain_word(struct config *c, const char *node, char *word, char *cpus, const char *origin,
		       struct skep_error *e)
{
	char *eq = strchr(word, '=');
	size_t len = strlen(cpus);

	if (!eq && len) {
		snprintf(cpus + len, 200 - len, ",%s", word);
		return set(c, node, "cpus", cpus, origin, e);
	}
	if (eq)
		*eq++ = '\0';
	if (eq && !strcmp(word, "cpus"))
		snprintf(cpus, 200, "%s", eq);
	if (!eq || (strcmp(word, "cpus") && strcmp(word, "size")))
		return skep_fail(e, EINVAL, "%s: \"%.40s\" is none of id, size, cpus%s", origin, word,
				 strcmp(word, "domain_policy") ? "" : "; where the host takes memory from "
				 "is numactl(8)'s to say");
	return set(c, node, word, eq, origin, e);
}

/* id=n,size=bytes,cpus=list, in this order as bhyve(8) has them */
int domain_parse(struct config *c, const char *arg, struct skep_error *e)
{
	char *copy, *rest, *word, origin[128], node[32], cpus[200] = "";
	int ret = copy_arg("-n", arg, &copy, e);

	if (ret)
		return ret;
	snprintf(origin, sizeof(origin), "-n %.100s", arg);
	rest = copy;
	word = next_word(&rest);
	if (!word || strncmp(word, "id=", 3) || strspn(word + 3, "0123456789") != strlen(word + 3) ||
	    !word[3] || strlen(word) > 6) {
		ret = skep_fail(e, EINVAL, "%s: write -n id=0,size=1G,cpus=0-1", origin);
	} else {
		snprintf(node, sizeof(node), "domains.%s", word + 3);
		while (!ret && (word = next_word(&rest)))
			ret = domain_word(c, node, word, cpus, origin, e);
	}
	free(copy);
	return ret;
}

void slot_help(FILE *out)
{
	fputs("-s [bus:]slot[:func],DEVICE[,key=value...]\n\nDevices:\n", out);
	for (const struct config_slot_type *t = config_slot_types; t->name; t++)
		fprintf(out, "  %-12s %s\n", t->name, t->help);
	fputs("\nThe board always has these two, so that -s 0,hostbridge -s 31,lpc describes\n"
	      "it and may be left out.\n\nBackends of virtio-net:\n", out);
	net_describe(out);
}

void lpc_help(FILE *out)
{
	fputs("-l DEVICE[,value]\n\nDevices:\n", out);
	for (size_t i = 0; i < ARRAY_SIZE(lpc_devices); i++) {
		const struct lpc_device *d = &lpc_devices[i];

		if (d->help)
			fprintf(out, "  %s%s%-*s %s\n", d->name, d->metavar ? "," : "",
				(int)(18 - strlen(d->name) - (d->metavar != NULL)),
				d->metavar ? d->metavar : "", d->help);
	}
	fputs("\nBackends of a serial port:\n", out);
	char_describe(out);
}
