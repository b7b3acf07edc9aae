/* Every type of device there is, in one list that a reader can find. */
#include "vm/device.h"

#include "boot/fwcfg.h"
#include "chipset/acpi_pm.h"
#include "chipset/chipset.h"
#include "chipset/debug_exit.h"
#include "chipset/hpet.h"
#include "chipset/i8254.h"
#include "chipset/i8259.h"
#include "chipset/ioapic.h"
#include "chipset/lapic.h"
#include "chipset/mc146818.h"
#include "chipset/reset.h"
#include "chipset/uart.h"
#include "clock/hyperv.h"
#include "clock/pvclock.h"
#include "clock/vmclock.h"
#include "clock/vmgenid.h"
#include "pci/pci.h"
#include "virtio/console.h"
#include "virtio/net.h"
#include "virtio/virtio.h"
#include "virtio/vsock.h"

const struct device_type *const device_types[] = {
	/* processors and board */
	&lapic_type,
	&pvclock_type,
	&hyperv_type,
	&hyperv_vp_type,
	&board_type,
	&i8259_type,
	&ioapic_type,
	&i8254_type,
	&mc146818_type,
	&hpet_type,
	&acpi_pm_type,
	&reset_type,
	/* LPC */
	&uart_type,
	&debug_exit_type,
	&fwcfg_type,
	&vmgenid_type,
	&vmclock_type,
	/* PCI */
	&pci_bus_type,
	&hostbridge_type.device,
	&lpc_type.device,
	&virtio_blk_type.pci.device,
	&virtio_9p_type.pci.device,
	&virtio_rnd_type.pci.device,
	&virtio_balloon_type.pci.device,
	&virtio_net_type.pci.device,
	&virtio_console_type.pci.device,
	&virtio_vsock_type.pci.device,
	NULL,
};
