/* The version of skep. */
#ifndef SKEP_VERSION_H
#define SKEP_VERSION_H

#define SKEP_VERSION "0.1.0"

#endif
