#include "vm/input.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vm/inputlog.h"
#include "vm/machine_record.h"
#include "vm/virtual.h"
#include "vm/vm.h"

struct record {
	struct input_point at;
	char port[sizeof(((struct input_port *)0)->name)];
	uint8_t *data;
	size_t len;
	struct record *next;
};

struct input_log {
	struct input_port *ports;
	FILE *out;		/* input.record */
	char *out_path, *in_path;
	bool replaying;		/* input.replay: host input is dropped */
	struct record *replay;	/* still to come, by point */
	struct record *queue, **queue_end;	/* from the host, clock=virtual */
};

static void record_free(struct record *r)
{
	if (r)
		free(r->data);
	free(r);
}

static void list_free(struct record *r)
{
	while (r) {
		struct record *next = r->next;

		record_free(r);
		r = next;
	}
}

/* ---- The file -------------------------------------------------------- */

static void header_line(const struct vm *vm, char *buf, size_t n)
{
	snprintf(buf, n, "skep-input 1 seed=%" PRIu64 " insn_ps=%" PRIu32 " start=%" PRId64,
		 vm->seed, vm->clock.insn_ps, vm->clock.wall_base);
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool parse_hex(const char *s, struct record *r)
{
	size_t n = strlen(s), i;

	if (!n || n % 2)
		return false;
	r->len = n / 2;
	r->data = malloc(r->len);
	if (!r->data)
		return false;
	for (i = 0; i < r->len; i++) {
		int hi = hex_digit(s[2 * i]), lo = hex_digit(s[2 * i + 1]);

		if (hi < 0 || lo < 0)
			return false;
		r->data[i] = (uint8_t)(hi << 4 | lo);
	}
	return true;
}

static bool parse_number(const char *s, uint64_t max, uint64_t *v)
{
	char *end;

	if (*s < '0' || *s > '9')
		return false;
	errno = 0;
	*v = strtoull(s, &end, 10);
	return !errno && !*end && *v <= max;
}

/* A line without its newline; it is cut up. */
static struct record *parse_line(char *line)
{
	struct record *r = calloc(1, sizeof(*r));
	char *save, *insns = strtok_r(line, " \t", &save), *ns = strtok_r(NULL, " \t", &save);
	char *port = strtok_r(NULL, " \t", &save), *hex = strtok_r(NULL, " \t", &save);
	uint64_t t;

	if (!r || !hex || strtok_r(NULL, " \t", &save) ||
	    !parse_number(insns, UINT64_MAX, &r->at.insns) || !parse_number(ns, CLOCK_END, &t) ||
	    strlen(port) >= sizeof(r->port) || !parse_hex(hex, r)) {
		record_free(r);
		return NULL;
	}
	r->at.ns = (int64_t)t;
	strcpy(r->port, port);
	return r;
}

static bool before(const struct input_point *a, const struct input_point *b)
{
	return a->insns != b->insns ? a->insns < b->insns : a->ns < b->ns;
}

static int read_lines(struct vm *vm, FILE *f, struct skep_error *e)
{
	struct input_log *log = vm->input;
	struct record **end = &log->replay, *last = NULL, *r;
	char header[160], *line = NULL;
	unsigned number = 0;
	size_t cap = 0;
	ssize_t len;
	int err = 0;

	header_line(vm, header, sizeof(header));
	while (!err && (len = getline(&line, &cap, f)) >= 0) {
		number++;
		if (len && line[len - 1] == '\n')
			line[--len] = '\0';
		if (number == 1 && strcmp(line, header))
			err = skep_fail(e, EINVAL, "input.replay: %s was recorded on another machine: "
					"its first line is not \"%s\"", log->in_path, header);
		if (number == 1 || !len || line[0] == '#')
			continue;
		r = parse_line(line);
		if (!r || (last && before(&r->at, &last->at))) {
			record_free(r);
			err = skep_fail(e, EINVAL, "input.replay: %s:%u: want \"count ns port hex\", in "
					"rising order of count and ns", log->in_path, number);
			continue;
		}
		*end = last = r;
		end = &r->next;
	}
	if (!err && ferror(f))
		err = skep_fail(e, EIO, "input.replay: %s cannot be read", log->in_path);
	if (!err && !number)
		err = skep_fail(e, EINVAL, "input.replay: %s is empty", log->in_path);
	free(line);
	return err;
}

static int open_replay(struct vm *vm, struct skep_error *e)
{
	struct input_log *log = vm->input;
	FILE *f = fopen(log->in_path, "re");
	int err;

	if (!f)
		return skep_fail(e, errno, "input.replay: %s: %s", log->in_path, strerror(errno));
	log->replaying = true;
	err = read_lines(vm, f, e);
	fclose(f);
	return err;
}

static int open_record(struct vm *vm, struct skep_error *e)
{
	struct input_log *log = vm->input;
	char header[160];

	log->out = fopen(log->out_path, "we");
	header_line(vm, header, sizeof(header));
	if (!log->out || fprintf(log->out, "%s\n", header) < 0 || fflush(log->out))
		return skep_fail(e, errno, "input.record: %s cannot be written: %s", log->out_path,
				 strerror(errno));
	return 0;
}

int input_log_create(struct vm *vm, const char *record, const char *replay, struct skep_error *e)
{
	struct input_log *log = calloc(1, sizeof(*log));
	int err = 0;

	if (!log)
		return skep_fail(e, ENOMEM, "no memory for the input log");
	vm->input = log;
	log->queue_end = &log->queue;
	if ((record || replay) && vm->clock.mode != CLOCK_MODE_VIRTUAL)
		return skep_fail(e, EINVAL, "input.%s needs clock.mode=virtual: only there does input "
				 "arrive at an instruction count", record ? "record" : "replay");
	if (record && replay && !strcmp(record, replay))
		return skep_fail(e, EINVAL, "input.record and input.replay name the same file, %s: "
				 "it would be overwritten before it is read", record);
	log->out_path = record ? strdup(record) : NULL;
	log->in_path = replay ? strdup(replay) : NULL;
	if ((record && !log->out_path) || (replay && !log->in_path))
		return skep_fail(e, ENOMEM, "no memory for the input log");
	if (replay)
		err = open_replay(vm, e);
	if (!err && record)
		err = open_record(vm, e);
	return err;
}

void input_log_destroy(struct vm *vm)
{
	struct input_log *log = vm->input;

	if (!log)
		return;
	if (log->out)
		fclose(log->out);	/* every line was flushed when it was written */
	list_free(log->replay);
	list_free(log->queue);
	free(log->out_path);
	free(log->in_path);
	free(log);
	vm->input = NULL;
}

static void write_record(struct vm *vm, const struct record *r)
{
	FILE *f = vm->input->out;
	size_t i;

	if (!f)
		return;
	fprintf(f, "%" PRIu64 " %" PRId64 " %s ", r->at.insns, r->at.ns, r->port);
	for (i = 0; i < r->len; i++)
		fprintf(f, "%02x", r->data[i]);
	fputc('\n', f);
	if (!fflush(f) && !ferror(f))
		return;
	vm_request_error(vm, "input.record: %s cannot be written: %s", vm->input->out_path,
			 strerror(errno));
	fclose(f);
	vm->input->out = NULL;
}

/* ---- Ports ----------------------------------------------------------- */

void input_port_add(struct input_port *p, struct vm *vm, const char *name,
		    void (*deliver)(void *, const uint8_t *, size_t), void *opaque)
{
	p->vm = vm;
	p->deliver = deliver;
	p->opaque = opaque;
	snprintf(p->name, sizeof(p->name), "%s", name);
	p->next = vm->input->ports;
	vm->input->ports = p;
}

static struct input_port *find_port(const struct input_log *log, const char *name)
{
	struct input_port *p;

	for (p = log->ports; p; p = p->next)
		if (!strcmp(p->name, name))
			break;
	return p;
}

int input_log_check(struct vm *vm, struct skep_error *e)
{
	struct record *r;

	for (r = vm->input->replay; r; r = r->next)
		if (!find_port(vm->input, r->port))
			return skep_fail(e, EINVAL, "input.replay: %s names the port %s, which this "
					 "machine does not have", vm->input->in_path, r->port);
	return 0;
}

static bool enqueue(struct input_port *p, const uint8_t *data, size_t len)
{
	struct input_log *log = p->vm->input;
	struct record *r = calloc(1, sizeof(*r));

	if (r)
		r->data = malloc(len);
	if (!r || !r->data) {
		free(r);
		return false;
	}
	memcpy(r->data, data, len);
	r->len = len;
	strcpy(r->port, p->name);
	*log->queue_end = r;
	log->queue_end = &r->next;
	return true;
}

size_t vm_input_waiting(const struct input_port *p)
{
	const struct record *r;
	size_t n = 0;

	for (r = p->vm->input->queue; r; r = r->next)
		if (!strcmp(r->port, p->name))
			n += r->len;
	return n;
}

void vm_input(struct input_port *p, const uint8_t *data, size_t len)
{
	struct vm *vm = p->vm;

	if (!len)
		return;
	if (vm->clock.mode != CLOCK_MODE_VIRTUAL && !vm->quiesced) {
		p->deliver(p->opaque, data, len);
		return;
	}
	if (vm->input->replaying)
		return;
	if (!enqueue(p, data, len)) {
		vm_request_error(vm, "no memory for input to %s", p->name);
		return;
	}
	virtual_changed(vm);
}

/* ---- Delivery -------------------------------------------------------- */

bool input_log_waiting(const struct vm *vm)
{
	return vm->input->queue != NULL;
}

bool input_log_next(const struct vm *vm, struct input_point *next)
{
	if (!vm->input->replay)
		return false;
	*next = vm->input->replay->at;
	return true;
}

static void deliver_one(struct vm *vm, struct record *r)
{
	struct input_port *p = find_port(vm->input, r->port);

	write_record(vm, r);
	if (p)
		p->deliver(p->opaque, r->data, r->len);
	record_free(r);
}

void input_log_replay(struct vm *vm, const struct input_point *now)
{
	struct input_log *log = vm->input;
	struct record *r;

	while ((r = log->replay) && !before(now, &r->at)) {
		if (before(&r->at, now)) {
			vm_request_error(vm, "input.replay: %s: the input of instruction %" PRIu64
					 " and time %" PRId64 " is missed at %" PRIu64 " and %" PRId64
					 "; the log belongs to another machine", log->in_path,
					 r->at.insns, r->at.ns, now->insns, now->ns);
			list_free(log->replay);
			log->replay = NULL;
			return;
		}
		log->replay = r->next;
		deliver_one(vm, r);
	}
}

void input_log_deliver(struct vm *vm, const struct input_point *now)
{
	struct input_log *log = vm->input;
	struct record *r;

	while ((r = log->queue)) {
		log->queue = r->next;
		if (!log->queue)
			log->queue_end = &log->queue;
		r->at = *now;
		deliver_one(vm, r);
	}
}

void input_log_resume(struct vm *vm)
{
	struct input_point now = { 0, clock_now(&vm->clock) };

	if (vm->clock.mode != CLOCK_MODE_VIRTUAL)
		input_log_deliver(vm, &now);
}

/* ---- State ----------------------------------------------------------- */

int input_log_export(const struct vm *vm, struct state_list *list, struct skep_error *e)
{
	struct machine_input *in;
	const struct record *r;
	uint32_t n = 0;

	for (r = vm->input->queue; r; r = r->next) {
		if (r->len > MACHINE_INPUT_BYTES || n == MACHINE_INPUT_MAX)
			return skep_fail(e, E2BIG, "more input from the host waits for %s than a snapshot "
					 "holds: let the guest run before it is saved", r->port);
		n++;
	}
	if (!n)
		return 0;
	in = calloc(n, sizeof(*in));
	list->items = in;
	list->count = in ? n : 0;
	for (r = vm->input->queue; in && r; r = r->next, in++) {
		strcpy(in->port, r->port);
		in->data.data = malloc(r->len);
		if (!in->data.data)
			break;
		memcpy(in->data.data, r->data, r->len);
		in->data.len = (uint32_t)r->len;
	}
	return r ? skep_fail(e, ENOMEM, "no memory for the input that waits") : 0;
}

int input_log_validate(const struct vm *vm, const struct state_list *list, struct skep_error *e)
{
	const struct machine_input *in = list->items;
	uint32_t i;

	for (i = 0; i < list->count; i++) {
		if (!find_port(vm->input, in[i].port))
			return skep_fail(e, EINVAL, "machine: input[%" PRIu32 "] waits for the port '%s', "
					 "which this machine does not have", i, in[i].port);
		if (!in[i].data.len)
			return skep_fail(e, EINVAL, "machine: input[%" PRIu32 "] is empty", i);
	}
	return 0;
}

void input_log_commit(struct vm *vm, const struct state_list *list)
{
	const struct machine_input *in = list->items;
	struct input_log *log = vm->input;
	const struct input_point *last = &vm->last_point;
	struct record *r;
	uint32_t i;

	list_free(log->queue);
	log->queue = NULL;
	log->queue_end = &log->queue;
	for (i = 0; i < list->count; i++)
		if (!enqueue(find_port(log, in[i].port), in[i].data.data, in[i].data.len))
			vm_request_error(vm, "no memory for input to %s", in[i].port);
	while ((r = log->replay) && vm->visited && !before(last, &r->at)) {
		log->replay = r->next;
		record_free(r);
	}
}
