/*
 * Reset control (ICH9 data sheet, 13.7.2 and 13.7.5) and what is left of the
 * 8042.  There is no keyboard: ACPI says so, the status register reads zero, and
 * the commands that software uses to reset the machine work all the same.
 * Address line 20 is never masked.
 */
#include "chipset/reset.h"

#include <errno.h>

#include "vm/vm.h"

#define PORT_DATA	0x60
#define PORT_COMMAND	0x64
#define PORT_92		0x92

#define RST_CPU		0x04	/* 0xcf9: a rising one resets */
#define RST_BITS	0x0e	/* SYS_RST, RST_CPU, FULL_RST */
#define FAST_INIT	0x01	/* port 0x92 */
#define A20_GATE	0x02
#define KBD_WRITE_OUTPUT 0xd1	/* the next byte at 0x60 is the output port */
#define KBD_PULSE	0xf0	/* command 0xf0-0xff: pulses the zero bits of 3:0 low */
#define OUTPUT_RESET	0x01	/* output port, bit 0, active low: the processor's reset */

struct reset_model {
	uint8_t control;	/* 0xcf9 */
	uint8_t port92;
	uint8_t output_next;	/* a byte for the output port is expected at 0x60 */
};

struct reset {
	struct device dev;
	struct reset_model m;
};

static uint64_t control_read(void *opaque, uint64_t offset, unsigned size)
{
	const struct reset *r = opaque;

	return r->m.control;
}

/* The kind (INIT, hard, full with power cycle) makes no difference to a machine without firmware. */
static void control_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct reset *r = opaque;
	bool rising = (value & RST_CPU) && !(r->m.control & RST_CPU);

	r->m.control = value & RST_BITS;
	if (rising)
		vm_request_reset(r->dev.vm);
}

const struct bus_ops reset_control_ops = { control_read, control_write, 1 };

static uint64_t kbd_read(void *opaque, uint64_t offset, unsigned size)
{
	return 0;	/* nothing in the output buffer, input buffer free */
}

static void kbd_data_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct reset *r = opaque;

	if (r->m.output_next && !(value & OUTPUT_RESET))
		vm_request_reset(r->dev.vm);
	r->m.output_next = 0;
}

static void kbd_command_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct reset *r = opaque;

	r->m.output_next = (value & 0xff) == KBD_WRITE_OUTPUT;
	if ((value & 0xf0) == KBD_PULSE && !(value & OUTPUT_RESET))
		vm_request_reset(r->dev.vm);
}

static uint64_t port92_read(void *opaque, uint64_t offset, unsigned size)
{
	const struct reset *r = opaque;

	return r->m.port92;
}

static void port92_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct reset *r = opaque;
	bool rising = (value & FAST_INIT) && !(r->m.port92 & FAST_INIT);

	r->m.port92 = value & (FAST_INIT | A20_GATE);
	if (rising)
		vm_request_reset(r->dev.vm);
}

static const struct bus_ops data_ops = { kbd_read, kbd_data_write, 1 };
static const struct bus_ops command_ops = { kbd_read, kbd_command_write, 1 };
static const struct bus_ops port92_ops = { port92_read, port92_write, 1 };

/* Hooks. */

static int reset_init(struct device *d, struct skep_error *e)
{
	struct reset *r = container_of(d, struct reset, dev);
	struct bus *ports = &d->vm->ports;
	int err;

	d->type->reset(d);
	err = bus_map(ports, PORT_DATA, 1, &data_ops, r, "keyboard controller", e);
	if (err < 0)
		return err;
	err = bus_map(ports, PORT_COMMAND, 1, &command_ops, r, "keyboard controller", e);
	if (err < 0)
		goto no_command;
	err = bus_map(ports, PORT_92, 1, &port92_ops, r, "port 0x92", e);
	if (err < 0)
		goto no_port92;
	return 0;
no_port92:
	bus_unmap(ports, PORT_COMMAND);
no_command:
	bus_unmap(ports, PORT_DATA);
	return err;
}

static void reset_finish(struct device *d)
{
	bus_unmap(&d->vm->ports, PORT_DATA);
	bus_unmap(&d->vm->ports, PORT_COMMAND);
	bus_unmap(&d->vm->ports, PORT_92);
}

static void reset_reset(struct device *d)
{
	container_of(d, struct reset, dev)->m = (struct reset_model){ .port92 = A20_GATE };
}

static void reset_export(const struct device *d, void *model)
{
	*(struct reset_model *)model = container_of(d, const struct reset, dev)->m;
}

static int reset_validate(const struct device *d, const void *model, struct skep_error *e)
{
	const struct reset_model *m = model;

	if (m->control & ~RST_BITS)
		return skep_fail(e, EINVAL, "%s: control %#x has reserved bits set", d->name,
				 m->control);
	return 0;
}

static void reset_commit(struct device *d, const void *model)
{
	container_of(d, struct reset, dev)->m = *(const struct reset_model *)model;
}

static const struct state_field fields[] = {
	STATE_U8(struct reset_model, control, .max = RST_BITS),
	STATE_U8(struct reset_model, port92, .max = FAST_INIT | A20_GATE),
	STATE_U8(struct reset_model, output_next, .max = 1),
};

const struct state_record reset_record = {
	.kind = "reset",
	.version = 1,
	.model_size = sizeof(struct reset_model),
	.fields = fields,
	.nfields = ARRAY_SIZE(fields),
};

static const struct config_schema no_keys;

const struct device_type reset_type = {
	.name = "reset",
	.help = "reset control: 0xcf9, port 0x92, keyboard controller",
	.config = &no_keys,
	.state = &reset_record,
	.size = sizeof(struct reset),
	.init = reset_init,
	.finish = reset_finish,
	.reset = reset_reset,
	.quiesce = device_nop,
	.resume = device_nop,
	.export = reset_export,
	.validate = reset_validate,
	.commit = reset_commit,
};

struct reset *reset_create(struct vm *vm, struct skep_error *e)
{
	struct device *d = device_create(vm, &reset_type, "reset", NULL, e);

	return d ? container_of(d, struct reset, dev) : NULL;
}
