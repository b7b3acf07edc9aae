/* Every type of device there is, in one list that a reader can find. */
#include "vm/device.h"

const struct device_type *const device_types[] = {
	NULL,
};
