#include <errno.h>

#include "chipset/debug_exit.h"

#include "chipset/chipset.h"
#include "vm/vm.h"

/* As wide as QEMU's usual iosize=4: a word or double word write exits as well. */
#define DEBUG_EXIT_SIZE 4

struct debug_exit {
	struct device dev;
};

static uint64_t debug_exit_read(void *opaque, uint64_t offset, unsigned size)
{
	return 0;
}

static void debug_exit_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct debug_exit *x = opaque;

	/* A process's exit code has eight bits. */
	vm_request_exit(x->dev.vm, VM_EXIT_DEBUG_BASE + (((value << 1) | 1) & 0xff));
}

static const struct bus_ops debug_exit_bus = {
	.read = debug_exit_read,
	.write = debug_exit_write,
	.max_size = 4,
};

static int debug_exit_init(struct device *d, struct skep_error *e)
{
	return bus_map(&d->vm->ports, DEBUG_EXIT_PORT, DEBUG_EXIT_SIZE, &debug_exit_bus, d,
		       "debug exit port", e);
}

static void debug_exit_finish(struct device *d)
{
	bus_unmap(&d->vm->ports, DEBUG_EXIT_PORT);
}

static const struct config_key debug_exit_keys[] = {
	{ .name = "debug_exit", .type = CONFIG_BOOL, .def = "false",
	  .help = "a write of V to port 0xf4 ends the run with exit code V * 2 + 1" },
};

static const struct config_schema debug_exit_schema = {
	debug_exit_keys, ARRAY_SIZE(debug_exit_keys)
};

const struct device_type debug_exit_type = {
	.name = "debug-exit",
	.help = "exit port of test kernels at 0xf4",
	.config = &debug_exit_schema,
	.state = &STATE_NONE,
	.size = sizeof(struct debug_exit),
	.init = debug_exit_init,
	.finish = debug_exit_finish,
	.reset = device_nop,
	.quiesce = device_nop,
	.resume = device_nop,
	.export = device_export_nothing,
	.validate = device_validate_nothing,
	.commit = device_commit_nothing,
};

int debug_exit_create(struct vm *vm, struct skep_error *e)
{
	struct config_node *lpc = config_find(vm->config, "lpc");

	if (!lpc || !config_bool(lpc, "debug_exit"))
		return 0;
	return device_create(vm, &debug_exit_type, "lpc.debug_exit", lpc, e) ? 0 : -EINVAL;
}
