/* tests/faults/guest.S with 16 MiB of it: a save takes tens of milliseconds. */
#define PAGES 4096
#include "../../faults/guest.S"
