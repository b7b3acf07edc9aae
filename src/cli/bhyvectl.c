/* bhyvectl(8), as far as it is about a running machine; -s and the like of it read a kernel. */
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"
#include "cli/control.h"

static const char help[] =
	"usage: bhyvectl --vm=NAME ACTION\n"
	"\n"
	"  --destroy             end the machine at once and wait for it (skep stop --force --wait)\n"
	"  --force-poweroff      end the machine at once (skep stop --force)\n"
	"  --force-reset         reset it (skep stop --reset)\n"
	"  --inject-nmi          send it a non-maskable interrupt (skep ctl NAME nmi)\n"
	"  --checkpoint=FILE     save it and go on (skep save NAME FILE)\n"
	"  --suspend=FILE        save it and end it (skep save --suspend NAME FILE)\n"
	"\n"
	"Everything else that bhyvectl reads or sets belongs to bhyve's kernel module.\n";

enum { DESTROY = 256, POWEROFF, RESET, NMI, CHECKPOINT, SUSPEND };

struct bhyvectl {
	const char *name, *file;
	int action;		/* 0: none yet */
};

static int apply(void *opaque, int got, struct skep_error *e)
{
	struct bhyvectl *b = opaque;

	if (got == 'v') {
		b->name = optarg;
		return 0;
	}
	if (b->action)
		return skep_fail(e, EINVAL, "bhyvectl: one action at a time");
	b->action = got;
	b->file = optarg;
	return 0;
}

static int act(const struct bhyvectl *b, const struct cli_start *start, struct skep_error *e)
{
	switch (b->action) {
	case DESTROY:
		return control_stop_machine(b->name, "poweroff", true, -1, e);
	case POWEROFF:
		return control_stop_machine(b->name, "poweroff", false, 0, e);
	case RESET:
		return control_stop_machine(b->name, "reset", false, 0, e);
	case NMI:
		return control_nmi(b->name, e);
	}
	return skep_fail(e, EINVAL, "bhyvectl: want an action, such as --destroy; `bhyvectl --help` "
			 "lists them");
}

static int save(const struct bhyvectl *b, const struct cli_start *start)
{
	char *argv[] = { (char *)"save", (char *)"--suspend", (char *)b->name, (char *)b->file, NULL };

	if (b->action == SUSPEND)
		return cli_save(4, argv, start);
	argv[1] = (char *)"--";
	return cli_save(4, argv, start);
}

int cli_bhyvectl(int argc, char **argv, const struct cli_start *start)
{
	static const struct option options[] = {
		{ "vm", required_argument, NULL, 'v' },
		{ "destroy", no_argument, NULL, DESTROY },
		{ "force-poweroff", no_argument, NULL, POWEROFF },
		{ "force-reset", no_argument, NULL, RESET },
		{ "inject-nmi", no_argument, NULL, NMI },
		{ "checkpoint", required_argument, NULL, CHECKPOINT },
		{ "suspend", required_argument, NULL, SUSPEND },
		{ "help", no_argument, NULL, 'h' }, { 0 } };
	struct skep_error e = { "" };
	struct bhyvectl b = { 0 };
	int ret = control_options(argc, argv, help, options, apply, &b, &e);

	if (ret > 0)
		return 0;
	if (!ret && optind < argc)
		ret = skep_fail(&e, EINVAL, "bhyvectl: \"%.80s\" is no option; `bhyvectl --help` lists them",
				argv[optind]);
	else if (!ret && !b.name)
		ret = skep_fail(&e, EINVAL, "bhyvectl: want --vm=NAME");
	if (!ret && (b.action == CHECKPOINT || b.action == SUSPEND))
		return save(&b, start);
	if (!ret)
		ret = act(&b, start, &e);
	if (!ret)
		return 0;
	cli_complain("%s", e.text);
	return CLI_ERROR;
}
