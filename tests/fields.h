/* Reaching into models by the names of their fields: "items[2].key". */
#ifndef SKEP_TESTS_FIELDS_H
#define SKEP_TESTS_FIELDS_H

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "state/state.h"

struct field_place {
	const struct state_field *field;
	uint8_t *p;			/* of the element; NULL: there is no such field */
	unsigned size;			/* bytes of a scalar element, else of the field's element */
};

static inline unsigned field_scalar(enum state_type t)
{
	switch (t) {
	case STATE_T_U8: case STATE_T_BOOL: return 1;
	case STATE_T_U16: return 2;
	case STATE_T_U32: return 4;
	case STATE_T_U64: case STATE_T_TIME: case STATE_T_GPA: return 8;
	default: return 0;
	}
}

static inline struct field_place field_find(const struct state_record *r, void *model,
					    const char *path)
{
	size_t len = strcspn(path, ".[");
	const char *rest = path + len;
	unsigned long index = 0;

	if (*rest == '[')
		index = strtoul(rest + 1, (char **)&rest, 10), rest++;
	for (size_t i = 0; i < r->nfields; i++) {
		const struct state_field *f = &r->fields[i];
		unsigned unit = field_scalar(f->type), size = unit ? unit : f->size;
		uint8_t *p = (uint8_t *)model + f->offset;

		if (strncmp(f->name, path, len) || f->name[len])
			continue;
		if (f->type == STATE_T_LIST) {
			struct state_list *l = (struct state_list *)p;

			if (*rest != '.')
				return (struct field_place){ f, p, size };
			if (index >= l->count)
				break;
			return field_find(f->sub, (uint8_t *)l->items + index * f->sub->model_size,
					  rest + 1);
		}
		p += index * size;
		if (f->type == STATE_T_STRUCT && *rest == '.')
			return field_find(f->sub, p, rest + 1);
		return (struct field_place){ f, p, size };
	}
	return (struct field_place){ NULL, NULL, 0 };
}

/* Sets a scalar; false: no such field. */
static inline bool field_set(const struct state_record *r, void *model, const char *path,
			     uint64_t value)
{
	struct field_place at = field_find(r, model, path);

	if (!at.p || !field_scalar(at.field->type))
		return false;
	memcpy(at.p, &value, at.size);
	return true;
}

static inline uint64_t field_get(const struct state_record *r, void *model, const char *path)
{
	struct field_place at = field_find(r, model, path);
	uint64_t value = 0;

	if (at.p)
		memcpy(&value, at.p, at.size);
	return value;
}

#endif
