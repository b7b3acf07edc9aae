/* Selectors, shared with assembly.  The order is what SYSCALL, SYSRET, SYSENTER and SYSEXIT want. */
#ifndef GUEST_LAYOUT_H
#define GUEST_LAYOUT_H

#define KCODE	0x08
#define KDATA	0x10
#define UCODE32	0x18
#define UDATA	0x20
#define UCODE	0x28
#define KCODE32	0x38
#define TSS_SEL	0x40	/* two entries in long mode */
#define SPARE	0x50	/* for the test's own descriptors, to the end */
#define GDT_ENTRIES 64

#define VEC_RETURN 0x80	/* user code ends by int $0x80 */

#endif
