/*
 * A record that has lived through three versions, for the tests of the codec: every type of
 * field, one added, one retired, one migrated, and a part that a reader may skip.
 *
 *	version 1	speed_khz (u16), turbo (u8)
 *	version 2	speed_hz in its place (migrated: upgrade and downgrade), level added (def 7)
 *	version 3	turbo retired (its only use was 0 or 1, which is level 9), rooms[].dust added
 */
#ifndef SKEP_TESTS_CODEC_SYNTHETIC_H
#define SKEP_TESTS_CODEC_SYNTHETIC_H

#include "state/codec.h"
#include "state/generation.h"
#include "state/state.h"

struct bee { char name[12]; uint16_t age; struct state_blob load; };
struct room { uint8_t width; uint16_t cells[3]; int16_t pad; uint32_t dust; };

struct hive {
	uint8_t u8;
	uint16_t u16;
	uint32_t u32;
	uint64_t u64;
	bool flag, flags[3];
	int64_t when, since[2];
	uint8_t raw[3], rows[2][4];
	uint16_t matrix[2][3];
	char label[16];
	struct state_blob honey;
	struct state_list bees;
	uint64_t queue;
	struct room door, rooms[2];
	uint16_t speed_khz;	/* until 1 */
	uint32_t speed_hz;	/* since 2 */
	uint8_t turbo;		/* until 2 */
	uint8_t level;		/* since 2, 7 */
	uint32_t hint;		/* may be skipped; 5 where it is not told */
	struct state_list guests;	/* since 3 */
};

static const struct state_field bee_fields[] = {
	STATE_TEXT(struct bee, name),
	STATE_U16(struct bee, age, .max = 400),
	STATE_BLOB(struct bee, load, .max = 64),
};
static const struct state_record bee_record = {
	.kind = "bee", .version = 1, .model_size = sizeof(struct bee),
	.fields = bee_fields, .nfields = ARRAY_SIZE(bee_fields),
};

static const struct state_field room_fields[] = {
	STATE_U8(struct room, width, .max = 9),
	STATE_ARRAY(struct room, cells, STATE_T_U16, .max = 1000),
	STATE_U32(struct room, dust, .since = 3, .def = 3),
};
static const struct state_record room_record = {
	.kind = "room", .version = 3, .model_size = sizeof(struct room),
	.fields = room_fields, .nfields = ARRAY_SIZE(room_fields),
};

static const struct state_field hive_fields[] = {
	STATE_U8(struct hive, u8),
	STATE_U16(struct hive, u16, .max = 0x100),
	STATE_U32(struct hive, u32),
	STATE_U64(struct hive, u64),
	STATE_BOOL(struct hive, flag),
	STATE_ARRAY(struct hive, flags, STATE_T_BOOL),
	STATE_TIME(struct hive, when, .max = 1000000),
	STATE_ARRAY(struct hive, since, STATE_T_TIME),
	STATE_BYTES(struct hive, raw),
	STATE_ARRAY(struct hive, rows, STATE_T_BYTES),
	STATE_ARRAY(struct hive, matrix, STATE_T_U16),
	STATE_TEXT(struct hive, label, .host = true),
	STATE_BLOB(struct hive, honey, .max = 300),
	STATE_LIST(struct hive, bees, &bee_record, .max = 5),
	STATE_GPA(struct hive, queue, .len = 0x1000),
	STATE_STRUCT(struct hive, door, &room_record),
	STATE_STRUCTS(struct hive, rooms, &room_record),
	STATE_U16(struct hive, speed_khz, .until = 1),
	STATE_U32(struct hive, speed_hz, .since = 2),
	STATE_U8(struct hive, turbo, .max = 1, .until = 2),
	STATE_U8(struct hive, level, .since = 2, .def = 7, .max = 9),
	STATE_U32(struct hive, hint, .opt = true, .def = 5),
	STATE_LIST(struct hive, guests, &bee_record, .max = 2, .since = 3),
};

static inline void hive_upgrade(void *model, uint16_t from)
{
	struct hive *h = model;

	if (from < 2)
		h->speed_hz = h->speed_khz * 1000u;
	if (from < 3 && h->turbo)
		h->level = 9;
}

static inline int hive_downgrade(void *model, uint16_t to, struct skep_error *e)
{
	struct hive *h = model;

	if (to < 3 && h->level == 9) {
		h->turbo = 1;
		h->level = 7;
	}
	if (to < 2) {
		if (h->speed_hz % 1000 || h->speed_hz / 1000 > UINT16_MAX)
			return skep_fail(e, ENOTSUP, "speed_hz: %u is no whole number of kHz, as version "
					 "1 has it", h->speed_hz);
		h->speed_khz = (uint16_t)(h->speed_hz / 1000);
		h->speed_hz = 0;
	}
	return 0;
}

static const struct state_record hive_record = {
	.kind = "hive", .version = 3, .model_size = sizeof(struct hive), .fields = hive_fields,
	.nfields = ARRAY_SIZE(hive_fields), .upgrade = hive_upgrade, .downgrade = hive_downgrade,
};

#endif
