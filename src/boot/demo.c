#include "boot/demo.h"

/* Made by scripts/embed from demo/. */
extern const unsigned char demo_guest[];
extern const unsigned long demo_guest_len;

const void *demo_image(size_t *size)
{
	*size = demo_guest_len;
	return demo_guest;
}
