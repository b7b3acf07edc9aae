/* virtio-net, for the tables of devices and of records. */
#ifndef SKEP_VIRTIO_NET_H
#define SKEP_VIRTIO_NET_H

#include "virtio/virtio.h"

extern const struct virtio_type virtio_net_type;
extern const struct state_record virtio_net_record;

#endif
