#include "snapshot/manifest.h"

#include "block/image.h"

#define SETTINGS_MAX	512
#define SETTING_BYTES	(64 * KiB)
#define LEAVES_MAX	128
#define REGIONS_MAX	2
#define DISKS_MAX	64
#define PATH_BYTES	4096
#define CPUS_MAX	4096	/* far more than any machine of ours: what a file may say */

static const struct state_field region_fields[] = {
	STATE_U64(struct manifest_region, gpa),
	STATE_U64(struct manifest_region, size),
};

static const struct state_record region_record = {
	.kind = "manifest-region", .version = 1, .model_size = sizeof(struct manifest_region),
	.fields = region_fields, .nfields = ARRAY_SIZE(region_fields),
};

static const struct state_field setting_fields[] = {
	STATE_TEXT(struct manifest_setting, key),
	STATE_BLOB(struct manifest_setting, value, .max = SETTING_BYTES),
};

static const struct state_record setting_record = {
	.kind = "manifest-setting", .version = 1, .model_size = sizeof(struct manifest_setting),
	.fields = setting_fields, .nfields = ARRAY_SIZE(setting_fields),
};

static const struct state_field leaf_fields[] = {
	STATE_U32(struct manifest_leaf, leaf),
	STATE_U32(struct manifest_leaf, sub),
	STATE_U32(struct manifest_leaf, eax),
	STATE_U32(struct manifest_leaf, ebx),
	STATE_U32(struct manifest_leaf, ecx),
	STATE_U32(struct manifest_leaf, edx),
};

static const struct state_record leaf_record = {
	.kind = "manifest-leaf", .version = 1, .model_size = sizeof(struct manifest_leaf),
	.fields = leaf_fields, .nfields = ARRAY_SIZE(leaf_fields),
};

static const struct state_field disk_fields[] = {
	STATE_TEXT(struct manifest_disk, device),
	STATE_U64(struct manifest_disk, size),
	STATE_U8(struct manifest_disk, kind, .max = IMAGE_OVERLAY),
	STATE_BOOL(struct manifest_disk, read_only),
	STATE_U64(struct manifest_disk, inode, .host = true),
	STATE_TIME(struct manifest_disk, changed_ns, .host = true),
	STATE_BYTES(struct manifest_disk, id, .host = true),
	STATE_U64(struct manifest_disk, sequence, .host = true),
	STATE_BOOL(struct manifest_disk, has_snapshot),
	STATE_BYTES(struct manifest_disk, snapshot, .host = true),
};

static const struct state_record disk_record = {
	.kind = "manifest-disk", .version = 1, .model_size = sizeof(struct manifest_disk),
	.fields = disk_fields, .nfields = ARRAY_SIZE(disk_fields),
};

static const struct state_field fields[] = {
	STATE_U32(struct manifest, format),
	STATE_U32(struct manifest, generation),
	STATE_BOOL(struct manifest, draft),
	STATE_TEXT(struct manifest, writer, .host = true),
	STATE_TEXT(struct manifest, name),
	STATE_BYTES(struct manifest, id, .host = true),
	STATE_BOOL(struct manifest, delta, .host = true),
	STATE_BYTES(struct manifest, parent, .host = true),
	STATE_BLOB(struct manifest, parent_path, .max = PATH_BYTES, .host = true),
	STATE_TIME(struct manifest, host_wall_ns, .host = true),
	STATE_TIME(struct manifest, guest_ns),
	STATE_TIME(struct manifest, guest_wall_ns),
	STATE_U32(struct manifest, tsc_khz),
	STATE_U32(struct manifest, insn_ps),
	STATE_BOOL(struct manifest, virtual_clock),
	STATE_TEXT(struct manifest, cpu_model),
	STATE_LIST(struct manifest, cpuid, &leaf_record, .max = LEAVES_MAX),
	STATE_U32(struct manifest, cpus, .max = CPUS_MAX),
	STATE_LIST(struct manifest, regions, &region_record, .max = REGIONS_MAX),
	STATE_LIST(struct manifest, config, &setting_record, .max = SETTINGS_MAX),
	STATE_LIST(struct manifest, disks, &disk_record, .max = DISKS_MAX),
	STATE_BLOB(struct manifest, written, .max = MANIFEST_WRITTEN_MAX, .opt = true, .host = true),
};

const struct state_record manifest_record = {
	.kind = "manifest", .version = 1, .model_size = sizeof(struct manifest),
	.fields = fields, .nfields = ARRAY_SIZE(fields),
};
