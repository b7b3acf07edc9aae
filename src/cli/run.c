/* skep run, skep demo --run: a machine from its flags to its exit code. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config/config.h"
#include "cli/cli.h"
#include "control/control.h"
#include "snapshot/schedule.h"
#include "vm/vm.h"

/* Files that are written at the end are opened first: a typing error costs no run. */
struct outputs {
	FILE *dump_state, *stats;
};

static FILE *open_output(const char *option, const char *path, struct skep_error *e)
{
	FILE *f = fopen(path, "we");

	if (!f)
		skep_fail(e, errno, "%s: cannot write \"%s\": %s", option, path, strerror(errno));
	return f;
}

static int outputs_open(struct outputs *out, const struct run_options *o, struct skep_error *e)
{
	if (o->dump_state)
		out->dump_state = open_output("--dump-state", o->dump_state, e);
	if (o->dump_state && !out->dump_state)
		return -EIO;
	if (o->stats)
		out->stats = open_output("--stats", o->stats, e);
	return o->stats && !out->stats ? -EIO : 0;
}

static int close_output(FILE *f, const char *option, const char *path)
{
	bool bad;

	if (!f)
		return 0;
	bad = fflush(f) || ferror(f);
	if (fclose(f) || bad) {
		cli_complain("%s: cannot write \"%s\": %s", option, path, strerror(errno));
		return CLI_ERROR;
	}
	return 0;
}

static int outputs_close(struct outputs *out, const struct run_options *o)
{
	int ret = close_output(out->dump_state, "--dump-state", o->dump_state);
	int ret2 = close_output(out->stats, "--stats", o->stats);

	return ret ? ret : ret2;
}

static void press(void *opaque)
{
	vm_power_button(opaque);
}

static void stop(void *opaque)
{
	vm_request_exit(opaque, VM_EXIT_POWEROFF);
}

static int process_code(int code)
{
	return code >= VM_EXIT_DEBUG_BASE ? (code - VM_EXIT_DEBUG_BASE) & 0xff : code;
}

/* A machine can do without its socket; only two of one name cannot be. */
static int open_control(struct vm *vm, struct control **control, struct skep_error *e)
{
	int err = control_start(vm, control, e);

	if (err && err != -EADDRINUSE) {
		fprintf(stderr, "skep: no control socket: %s; -o control=none does without\n", e->text);
		e->text[0] = '\0';
		err = 0;
	}
	return err;
}

/* The machine exists: run it to its end. */
static int run_vm(struct vm *vm, const struct run_options *o, struct outputs *out,
		  const struct cli_start *start, struct signals *signals, struct skep_error *e)
{
	struct signal_handlers h = { press, stop, vm };
	struct run_stats stats = { .start = start };
	struct control *control;
	int code;

	/* Before anybody can say resume. */
	if (o->paused)
		vm_pause(vm, STOP_USER);
	if (open_control(vm, &control, e))
		return CLI_ERROR;
	if (o->paused && !control) {
		skep_fail(e, EINVAL, "--paused: without a control socket nobody could let the machine go on");
		return CLI_ERROR;
	}
	signals_machine(signals, &h);
	stats.run_ns = cli_monotonic_ns();
	code = vm_run(vm, e);
	stats.end_ns = cli_monotonic_ns();
	signals_machine(signals, NULL);
	control_stop(control);
	stats.exit_code = process_code(code);
	if (out->dump_state)
		vm_dump_state(vm, out->dump_state);
	if (out->stats)
		stats_write(out->stats, vm, &stats);
	return stats.exit_code;
}

/* The same, with the saves that --save-at asks for. */
static int run_with_saves(struct vm *vm, const struct run_options *o, struct outputs *out,
			  const struct cli_start *start, struct signals *signals,
			  struct skep_error *e)
{
	struct skep_error missed = { "" };
	struct save_schedule *saves;
	int code;

	if (!o->nsave_at)
		return run_vm(vm, o, out, start, signals, e);
	saves = save_schedule_start(vm, o->save_at, o->nsave_at, e);
	if (!saves)
		return CLI_ERROR;
	code = run_vm(vm, o, out, start, signals, e);
	if (save_schedule_stop(saves, &missed) < 0 && !e->text[0]) {
		*e = missed;
		code = CLI_ERROR;
	}
	return code;
}

int cli_run_machine(struct config *c, const struct run_options *o, const struct cli_start *start,
		    const struct machine_maker *maker)
{
	struct outputs out = { 0 };
	struct skep_error e = { "" };
	struct signals *signals = signals_start(&e);
	struct vm *vm;
	int code = CLI_ERROR, ret;

	/* Opening may wait for ever (a FIFO): signals come first. */
	if (!signals || outputs_open(&out, o, &e))
		goto done;
	vm = maker->make(c, maker->opaque, &e);
	if (!vm)
		goto done;
	code = run_with_saves(vm, o, &out, start, signals, &e);
	vm_destroy(vm);
done:
	/* The machine is gone, the terminal as it was: now a sentence can be read. */
	if (e.text[0])
		cli_complain("%s", e.text);
	ret = outputs_close(&out, o);
	signals_stop(signals);
	return ret ? ret : code;
}

static int check_bootable(struct config *c, struct skep_error *e)
{
	struct config_node *root = config_root(c);

	if (config_is_set(root, "boot.kernel") && config_bool(root, "boot.demo"))
		return skep_fail(e, EINVAL, "boot.kernel and boot.demo exclude each other; start a "
				 "kernel with `skep run`");
	if (config_is_set(root, "boot.kernel") || config_bool(root, "boot.demo"))
		return 0;
	return skep_fail(e, EINVAL, "nothing to boot; give a kernel with --kernel FILE, or see "
			 "`skep demo`");
}

static bool has_console(struct config *c)
{
	static const char *const ports[] = { "lpc.com1.path", "lpc.com2.path", "lpc.com3.path",
					     "lpc.com4.path" };

	for (size_t i = 0; i < ARRAY_SIZE(ports); i++)
		if (config_is_set(config_root(c), ports[i]))
			return true;
	return false;
}

static int complain(const struct skep_error *e)
{
	cli_complain("%s", e->text);
	return CLI_ERROR;
}

static int show_topic(enum run_topic topic)
{
	switch (topic) {
	case RUN_HELP_SLOTS:
		slot_help(stdout);
		break;
	case RUN_HELP_LPC:
		lpc_help(stdout);
		break;
	case RUN_HELP_KEYS:
		config_describe(stdout, false);
		break;
	default:
		run_options_help(stdout);
	}
	return 0;
}

static struct vm *make_machine(struct config *c, void *opaque, struct skep_error *e)
{
	return vm_create(c, e);
}

static int run_parsed(struct config *c, const struct run_options *o, const struct cli_start *start)
{
	static const struct machine_maker maker = { make_machine, NULL };
	struct skep_error e = { "" };

	if (o->topic != RUN_MACHINE)
		return show_topic(o->topic);
	if (cli_choose_backend(c, &e) || config_freeze(c, &e))
		return complain(&e);
	if (config_bool(config_root(c), "config.dump")) {
		/* 1 as in bhyve: a wrapper that loops on 0 stops. */
		config_dump(c, stdout);
		return VM_EXIT_POWEROFF;
	}
	if (check_bootable(c, &e))
		return complain(&e);
	if (!has_console(c) && isatty(STDERR_FILENO))
		fputs("skep: no console; -l com1,stdio shows the guest's serial port here\n", stderr);
	return cli_run_machine(c, o, start, &maker);
}

/* c has what the command itself sets; the arguments come on top. */
static int run_with(struct config *c, int argc, char **argv, const struct cli_start *start)
{
	struct run_options o = { RUN_MACHINE };
	struct skep_error e = { "" };
	int ret;

	ret = run_options_parse(argc, argv, c, &o, &e) ? complain(&e) : run_parsed(c, &o, start);
	run_options_free(&o);
	return ret;
}

static int run_command(int argc, char **argv, const struct cli_start *start,
		       const char *const *settings)
{
	struct config *c = config_create();
	struct skep_error e = { "" };
	int ret;

	if (!c) {
		cli_complain("out of memory");
		return CLI_ERROR;
	}
	for (; *settings; settings++)
		if (config_set_assignment(c, *settings, NULL, &e)) {
			config_destroy(c);
			return complain(&e);
		}
	ret = run_with(c, argc, argv, start);
	config_destroy(c);
	return ret;
}

int cli_run(int argc, char **argv, const struct cli_start *start)
{
	static const char *const none[] = { NULL };

	return run_command(argc, argv, start, none);
}

int cli_run_demo(int argc, char **argv, const struct cli_start *start)
{
	static const char *const demo[] = { "name=demo", "boot.demo=true", "lpc.com1.path=stdio",
					    NULL };

	return run_command(argc, argv, start, demo);
}
