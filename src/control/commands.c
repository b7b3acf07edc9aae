/* The commands of the control socket (doc/skep-control.7). */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "block/block.h"
#include "config/nearest.h"
#include "control/internal.h"
#include "control/stats.h"
#include "skep/version.h"
#include "vm/vm.h"

struct argument {
	const char *name;
	json_type type;		/* JSON_TRUE stands for a boolean */
};

struct command {
	const char *name;
	struct argument arguments[9];	/* ends with name NULL */
	const char *help;
	/* 0 with *ret (NULL: an empty object), a negative errno with e set, 1: the reply comes later. */
	int (*run)(struct connection *n, json_t *args, json_t *id, json_t **ret,
		   struct skep_error *e);
};

/* ---- Status ----------------------------------------------------------- */

static const char *state_name(struct control *c, uint32_t reasons)
{
	if (vm_exiting(c->vm))
		return "ending";
	if (reasons & STOP_PAUSE)
		return "starting";
	if (c->saving.state != SAVING_NONE || (reasons & (STOP_SAVE | STOP_POINT)))
		return "saving";
	return reasons ? "paused" : "running";
}

static uint32_t pause_reasons(struct vm *vm)
{
	uint32_t reasons;

	pthread_mutex_lock(&vm->lock);
	reasons = vm->pause_reasons;
	pthread_mutex_unlock(&vm->lock);
	return reasons;
}

static json_t *reasons_list(uint32_t reasons)
{
	static const struct {
		uint32_t bit;
		const char *name;
	} names[] = {
		{ STOP_USER, "user" }, { STOP_SAVE, "save" }, { STOP_POINT, "save-at" },
		{ STOP_DEBUG, "debug" },
		{ STOP_RESET, "reset" }, { STOP_PAUSE, "power-on" }, { STOP_SHUTDOWN, "shutdown" },
	};
	json_t *list = json_array();

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (reasons & names[i].bit)
			json_array_append_new(list, json_string(names[i].name));
	return list;
}

static json_t *uuid_text(const uint8_t u[16])
{
	char text[40];

	snprintf(text, sizeof(text), "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x"
		 "%02x", u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11],
		 u[12], u[13], u[14], u[15]);
	return json_string(text);
}

static json_t *text_or_null(const char *s)
{
	return s ? control_text(s) : json_null();
}

/* Only the virtual clock keeps the count up to date while a processor runs. */
static json_t *insns_or_null(struct vm *vm)
{
	if (vm->clock.mode != CLOCK_MODE_VIRTUAL)
		return json_null();
	return json_integer((json_int_t)atomic_load(&vm->clock.insns));
}

static int64_t guest_ns(struct vm *vm)
{
	int64_t ns;

	/* A pause on another thread moves the clock's base. */
	device_lock(vm);
	ns = clock_now(&vm->clock);
	device_unlock(vm);
	return ns;
}

/* A save of the machine's own (--save-at) may be ending now. */
static json_t *last_snapshot(struct vm *vm)
{
	json_t *path;

	pthread_mutex_lock(&vm->lock);
	path = text_or_null(vm->origin.known ? vm->origin.path : NULL);
	pthread_mutex_unlock(&vm->lock);
	return path;
}

static int run_status(struct connection *n, json_t *args, json_t *id, json_t **ret,
		      struct skep_error *e)
{
	struct control *c = n->control;
	struct vm *vm = c->vm;
	struct config_node *root = vm->config ? config_root(vm->config) : NULL;
	uint32_t reasons = pause_reasons(vm);

	*ret = json_pack("{s:o,s:I,s:o,s:s,s:o,s:i,s:I,s:I,s:I,s:o,s:s,s:o,s:o,s:I,s:I,s:o,s:o,s:o}",
		"name", control_text(vm->name), "pid", (json_int_t)getpid(),
		"uuid", uuid_text(vm->uuid), "state", state_name(c, reasons),
		"stopped_for", reasons_list(reasons), "cpus", (int)vm->ncpus,
		"memory_bytes", (json_int_t)vm->memory.size,
		"touched_bytes", (json_int_t)memory_touched(&vm->memory),
		"guest_ns", (json_int_t)guest_ns(vm),
		"insns", insns_or_null(vm),
		"clock", vm->clock.mode == CLOCK_MODE_VIRTUAL ? "virtual" : "realtime",
		"backend", text_or_null(vm->ncpus ? vm->vcpus[0]->ops->name : NULL),
		"cpu_model", text_or_null(config_string(root, "cpu.model")),
		"uptime_ns", (json_int_t)(control_now() - c->begin),
		"first_run_ns", (json_int_t)atomic_load(&vm->first_run_ns),
		"save", saving_status(c),
		"restored_from", text_or_null(c->restored_from),
		"last_snapshot", last_snapshot(vm));
	return *ret ? 0 : skep_fail(e, ENOMEM, "no memory for the status");
}

static int run_stats(struct connection *n, json_t *args, json_t *id, json_t **ret,
		     struct skep_error *e)
{
	*ret = control_stats(n->control->vm);
	return *ret ? 0 : skep_fail(e, ENOMEM, "no memory for the counters");
}

/* ---- Pause, resume, stop ------------------------------------------------ */

static json_t *changed(struct control *c, bool was, bool is)
{
	if (was != is)
		control_event(c, json_pack("{s:s}", "event", is ? "paused" : "resumed"));
	return json_pack("{s:b,s:s}", "changed", was != is, "state",
			 state_name(c, pause_reasons(c->vm)));
}

static int run_pause(struct connection *n, json_t *args, json_t *id, json_t **ret,
		     struct skep_error *e)
{
	struct vm *vm = n->control->vm;
	bool was = pause_reasons(vm) & STOP_USER;

	vm_pause(vm, STOP_USER);
	*ret = changed(n->control, was, true);
	return 0;
}

static int run_resume(struct connection *n, json_t *args, json_t *id, json_t **ret,
		      struct skep_error *e)
{
	const char *time = json_string_value(json_object_get(args, "time"));
	struct vm *vm = n->control->vm;
	bool was = pause_reasons(vm) & STOP_USER, advance = time && !strcmp(time, "advance");

	if (time && !advance && strcmp(time, "continue"))
		return skep_fail(e, EINVAL, "resume: there is no time \"%.40s\"; it is continue or advance",
				 time);
	if (advance && vm->clock.mode == CLOCK_MODE_VIRTUAL)
		return skep_fail(e, EINVAL, "resume: the machine has clock.mode=virtual, whose time is not "
				 "the host's and cannot be moved on; leave out \"advance\"");
	if (advance && was)
		vm_advance(vm);
	vm_resume(vm, STOP_USER);
	*ret = changed(n->control, was, false);
	return 0;
}

static void stop_poweroff(struct vm *vm)
{
	vm_request_exit(vm, VM_EXIT_POWEROFF);
}

static int run_stop(struct connection *n, json_t *args, json_t *id, json_t **ret,
		    struct skep_error *e)
{
	static const struct {
		const char *name;
		void (*fn)(struct vm *vm);
	} modes[] = {
		{ "powerbutton", vm_power_button },
		{ "poweroff", stop_poweroff },
		{ "reset", vm_request_reset },
	};
	const char *mode = json_string_value(json_object_get(args, "mode"));
	struct vm *vm = n->control->vm;

	for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
		if (strcmp(modes[i].name, mode ? mode : "powerbutton"))
			continue;
		*ret = json_pack("{s:s,s:s}", "mode", modes[i].name, "state",
				 state_name(n->control, pause_reasons(vm)));
		modes[i].fn(vm);
		return 0;
	}
	return skep_fail(e, EINVAL, "stop: there is no mode \"%.40s\"; it is powerbutton, poweroff or "
			 "reset", mode);
}

static int run_nmi(struct connection *n, json_t *args, json_t *id, json_t **ret, struct skep_error *e)
{
	vm_nmi(n->control->vm);
	return 0;
}

/* Any disk of the machine, by its place in the configuration. */
static int resize_disk(struct vm *vm, const char *device, uint64_t bytes, json_t **ret,
		       struct skep_error *e)
{
	struct block *b = vm->disks;
	int err;

	while (b && strcmp(block_owner(b), device))
		b = block_next(b);
	if (!b)
		return skep_fail(e, ENODEV, "disk-resize: there is no disk \"%.60s\"; they are named as in "
				 "pci.0.3.0", device);
	if (vm->quiesced)
		return skep_fail(e, EAGAIN, "disk-resize: the machine stands; let it go on before");
	err = block_resize(b, bytes, e);
	if (!err)
		*ret = json_pack("{s:I}", "bytes", (json_int_t)block_size(b));
	return err;
}

static int run_disk_resize(struct connection *n, json_t *args, json_t *id, json_t **ret,
			   struct skep_error *e)
{
	const char *device = json_string_value(json_object_get(args, "device"));
	json_int_t bytes = json_integer_value(json_object_get(args, "bytes"));
	struct vm *vm = n->control->vm;
	int err;

	if (!device || bytes < 0)
		return skep_fail(e, EINVAL, "disk-resize: want the disk, \"device\", and its new size in "
				 "\"bytes\"; without it the size that its file has by now");
	if (vm->clock.mode == CLOCK_MODE_VIRTUAL)
		return skep_fail(e, ENOTSUP, "disk-resize: with clock.mode=virtual nothing reaches the guest "
				 "from outside but by the input log");
	device_lock(vm);
	err = resize_disk(vm, device, (uint64_t)bytes, ret, e);
	device_unlock(vm);
	return err;
}

static int run_subscribe(struct connection *n, json_t *args, json_t *id, json_t **ret,
			 struct skep_error *e)
{
	json_t *on = json_object_get(args, "on");

	n->subscribed = on ? json_is_true(on) : true;
	return 0;
}

/* ---- The table ----------------------------------------------------------- */

static int run_help(struct connection *n, json_t *args, json_t *id, json_t **ret,
		    struct skep_error *e);

static const struct command commands[] = {
	{ "status", { { NULL } }, "how the machine is", run_status },
	{ "stats", { { NULL } }, "what it counts about itself", run_stats },
	{ "pause", { { NULL } }, "the machine stands until resume", run_pause },
	{ "resume", { { "time", JSON_STRING } }, "the machine goes on; time: continue (default) or advance",
	  run_resume },
	{ "stop", { { "mode", JSON_STRING } }, "powerbutton (default), poweroff or reset", run_stop },
	{ "nmi", { { NULL } }, "a non-maskable interrupt for every processor", run_nmi },
	{ "disk-resize", { { "device", JSON_STRING }, { "bytes", JSON_INTEGER } },
	  "a disk grows, to so many bytes, or to what its file or device has by now", run_disk_resize },
	{ "save", { { "suspend", JSON_TRUE }, { "live", JSON_TRUE }, { "delta", JSON_TRUE },
		    { "disks", JSON_TRUE },
		    { "zstd_level", JSON_INTEGER }, { "generation", JSON_INTEGER },
		    { "no_sync", JSON_TRUE }, { "path", JSON_STRING } },
	  "saves to the descriptor that comes with it; save-commit or save-abort is due then",
	  saving_start },
	{ "save-commit", { { NULL } }, "the saved file is in its place", saving_commit },
	{ "save-abort", { { NULL } }, "the saved file is given up", saving_abort },
	{ "subscribe", { { "on", JSON_TRUE } }, "events come to this connection", run_subscribe },
	{ "help", { { NULL } }, "these commands", run_help },
};

static const char *type_name(json_type t)
{
	return t == JSON_STRING ? "string" : t == JSON_INTEGER ? "integer" : "boolean";
}

static int run_help(struct connection *n, json_t *args, json_t *id, json_t **ret,
		    struct skep_error *e)
{
	*ret = json_object();
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		json_t *a = json_object();

		for (const struct argument *p = commands[i].arguments; p->name; p++)
			json_object_set_new(a, p->name, json_string(type_name(p->type)));
		json_object_set_new(*ret, commands[i].name,
				    json_pack("{s:s,s:o}", "help", commands[i].help, "arguments", a));
	}
	return 0;
}

/* ---- Requests -------------------------------------------------------------- */

static const struct command *find_command(const char *name, struct skep_error *e)
{
	struct nearest near;
	char hint[160];

	nearest_init(&near, name);
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		if (!strcmp(commands[i].name, name))
			return &commands[i];
		nearest_offer(&near, commands[i].name);
	}
	nearest_hint(&near, hint, sizeof(hint));
	skep_fail(e, ENOSYS, "there is no command \"%.60s\"%s", name,
		  *hint ? hint : "; the command help lists them");
	return NULL;
}

static bool type_fits(json_type want, const json_t *value)
{
	return want == JSON_TRUE ? json_is_boolean(value) : json_typeof(value) == want;
}

static int check_arguments(const struct command *c, json_t *args, struct skep_error *e)
{
	const char *key;
	json_t *value;

	json_object_foreach(args, key, value) {
		const struct argument *p = c->arguments;

		while (p->name && strcmp(p->name, key))
			p++;
		if (!p->name)
			return skep_fail(e, EINVAL, "%s: there is no argument \"%.60s\"", c->name, key);
		if (!type_fits(p->type, value))
			return skep_fail(e, EINVAL, "%s: \"%s\" is to be a %s", c->name, key,
					 type_name(p->type));
	}
	return 0;
}

/* What a request is made of; all but the command may be missing. */
static int take_request(json_t *request, const char **name, json_t **args, struct skep_error *e)
{
	const char *key;
	json_t *value;

	json_object_foreach(request, key, value)
		if (strcmp(key, "execute") && strcmp(key, "arguments") && strcmp(key, "id"))
			return skep_fail(e, EINVAL, "there is no \"%.60s\" in a request, only execute, "
					 "arguments and id", key);
	*name = json_string_value(json_object_get(request, "execute"));
	*args = json_object_get(request, "arguments");
	if (!*name)
		return skep_fail(e, EINVAL, "a request is an object with \"execute\": \"COMMAND\"");
	if (*args && !json_is_object(*args))
		return skep_fail(e, EINVAL, "\"arguments\" is to be an object");
	return 0;
}

static int run_request(struct connection *n, json_t *request, json_t *id, json_t **ret,
		       struct skep_error *e)
{
	const struct command *c;
	const char *name = NULL;
	json_t *args = NULL;
	int err = take_request(request, &name, &args, e);

	if (err)
		return err;
	c = find_command(name, e);
	if (!c)
		return -ENOSYS;
	err = check_arguments(c, args, e);
	return err ? err : c->run(n, args, id, ret, e);
}

void control_serve(struct connection *n, const char *line, size_t len)
{
	json_error_t je;
	json_t *request = json_loadb(line, len, JSON_REJECT_DUPLICATES, &je);
	json_t *id = json_object_get(request, "id"), *ret = NULL;
	struct skep_error e = { "" };
	int err;

	if (!request)
		err = skep_fail(&e, EINVAL, "not a line of JSON, or there is no memory to read it: %s",
				je.text);
	else
		err = run_request(n, request, id, &ret, &e);
	if (err < 0)
		connection_fail(n, id, -err, e.text);
	else if (!err)
		connection_reply(n, id, ret);
	json_decref(request);
}
