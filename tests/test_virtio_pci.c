/* The PCI transport and the devices of src/virtio that need no host: VIRTIO 1.2, section 4.1. */
#include "virtio_helper.h"


int main(void)
{
	return 0;
}
