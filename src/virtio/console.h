/* virtio-console, for the tables of devices and of records. */
#ifndef SKEP_VIRTIO_CONSOLE_H
#define SKEP_VIRTIO_CONSOLE_H

#include "virtio/virtio.h"

extern const struct virtio_type virtio_console_type;
extern const struct state_record virtio_console_record;

#endif
