/* The interrupt routing of PCI in the DSDT: the parts, each where it belongs. */
#ifndef SKEP_BOOT_PRT_H
#define SKEP_BOOT_PRT_H

#include "boot/blob.h"

/* In the root's scope: which interrupt controllers the guest uses. */
void prt_pic(struct blob *b);
/* In PCI0: _PRT. */
void prt_build(struct blob *b);
/* In the LPC bridge, PCI0.ISA_: its routing registers. */
void prt_registers(struct blob *b);
/* In \_SB: link devices LNKA-LNKH. */
void prt_links(struct blob *b);

#endif
