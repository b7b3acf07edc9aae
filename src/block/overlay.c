#include "block/image.h"
struct image *overlay_open(const struct image_options *o, struct skep_error *e){skep_fail(e,1,"no");return 0;}
