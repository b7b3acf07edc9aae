/* skep help, skep version. */
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"
#include "config/config.h"
#include "config/nearest.h"
#include "skep/version.h"

static const char intro[] =
	"skep runs x86-64 machines in one process, on its own processor, for people who\n"
	"know bhyve: no kernel module, no privileges.\n"
	"\n"
	"Try it:\n"
	"  skep demo                       save, kill and restore the guest that is built in\n"
	"  skep run -m 512M -l com1,stdio --kernel vmlinuz --initrd initrd.gz \\\n"
	"           --append console=ttyS0 debian\n"
	"\n"
	"Machines that run:\n"
	"  skep list                       which there are\n"
	"  skep status NAME                how one is; pause, resume and stop take a NAME, too\n"
	"  skep stop --wait NAME           press its power button and wait for its end\n"
	"\n"
	"Snapshots:\n"
	"  skep save NAME FILE             save a machine while it runs; --suspend ends it\n"
	"  skep restore FILE               go on where it stood; no other flags are needed\n"
	"  skep clone -n 20 FILE           several machines from one file\n"
	"  skep inspect FILE               what one holds; diff compares two\n"
	"  skep verify FILE...             is it whole, and would it be restored\n"
	"  skep snapshot flatten FILE OUT  one file out of a chain of deltas\n"
	"\n"
	"Learn more:\n"
	"  skep run --help                 every flag (they are bhyve's), with examples\n"
	"  skep COMMAND --help             the options of any other command\n"
	"  skep help keys [--json]         every configuration key, for -o and -k\n"
	"  skep help devices               what -s and -l take\n"
	"  skep version [--json]\n"
	"  man skep\n";

static int show_devices(void)
{
	slot_help(stdout);
	fputc('\n', stdout);
	lpc_help(stdout);
	return 0;
}

static int unknown_topic(const char *word)
{
	static const char *const topics[] = { "keys", "devices", "run" };
	struct nearest near;
	char hint[160];

	nearest_init(&near, word);
	for (size_t i = 0; i < ARRAY_SIZE(topics); i++)
		nearest_offer(&near, topics[i]);
	nearest_hint(&near, hint, sizeof(hint));
	cli_complain("there is no help about \"%s\"%s", word,
		     *hint ? hint : "; the topics are keys, devices and the commands");
	return CLI_ERROR;
}

int cli_help(int argc, char **argv)
{
	const char *topic = NULL;
	bool json = false;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--json")) {
			json = true;
		} else if (topic) {
			cli_complain("help takes one topic; \"%s\" is a second one", argv[i]);
			return CLI_ERROR;
		} else {
			topic = argv[i];
		}
	}
	if (json && (!topic || strcmp(topic, "keys"))) {
		cli_complain("--json goes with `skep help keys`");
		return CLI_ERROR;
	}
	if (!topic)
		fputs(intro, stdout);
	else if (!strcmp(topic, "keys"))
		config_describe(stdout, json);
	else if (!strcmp(topic, "run") || !strcmp(topic, "demo"))
		run_options_help(stdout);
	else if (!strcmp(topic, "devices"))
		return show_devices();
	else
		return unknown_topic(topic);
	return 0;
}

int cli_version(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "--json")) {
		cli_complain("version takes no \"%s\", only --json", argv[1]);
		return CLI_ERROR;
	}
	printf(argc > 1 ? "{\"version\": \"%s\"}\n" : "skep %s\n", SKEP_VERSION);
	return 0;
}
