/* 9P2000.L on the wire: numbers of messages and what stands in them (diod's protocol.md, Linux's 9p). */
#ifndef SKEP_P9_PROTO_H
#define SKEP_P9_PROTO_H

#include <stdint.h>

enum p9_message {
	P9_RLERROR = 7,
	P9_TSTATFS = 8, P9_TLOPEN = 12, P9_TLCREATE = 14, P9_TSYMLINK = 16, P9_TMKNOD = 18,
	P9_TRENAME = 20, P9_TREADLINK = 22, P9_TGETATTR = 24, P9_TSETATTR = 26,
	P9_TXATTRWALK = 30, P9_TXATTRCREATE = 32, P9_TREADDIR = 40, P9_TFSYNC = 50,
	P9_TLOCK = 52, P9_TGETLOCK = 54, P9_TLINK = 70, P9_TMKDIR = 72, P9_TRENAMEAT = 74,
	P9_TUNLINKAT = 76, P9_TVERSION = 100, P9_TAUTH = 102, P9_TATTACH = 104, P9_TFLUSH = 108,
	P9_TWALK = 110, P9_TREAD = 116, P9_TWRITE = 118, P9_TCLUNK = 120, P9_TREMOVE = 122,
};	/* the answer's number is one more */

#define P9_VERSION	"9P2000.L"
#define P9_NOTAG	0xffffu
#define P9_NOFID	0xffffffffu
#define P9_NONUNAME	0xffffffffu
#define P9_HEAD		7u	/* size[4] type[1] tag[2] */
#define P9_WRITE_HEAD	23u	/* a Twrite up to its data */
#define P9_READ_HEAD	11u	/* an Rread or Rreaddir up to its data */
#define P9_MSIZE_MIN	4096u
#define P9_WALK_MAX	16u	/* names in one Twalk */
#define P9_NAME_LEN	255u	/* bytes of a name, as Linux has it */

#define P9_QID_DIR	0x80
#define P9_QID_SYMLINK	0x02
#define P9_QID_FILE	0x00

struct p9_qid {
	uint8_t type;
	uint32_t version;
	uint64_t path;
};

/* Tsetattr: which of its fields count. */
#define P9_SET_MODE	0x001u
#define P9_SET_UID	0x002u
#define P9_SET_GID	0x004u
#define P9_SET_SIZE	0x008u
#define P9_SET_ATIME	0x010u
#define P9_SET_MTIME	0x020u
#define P9_SET_CTIME	0x040u
#define P9_SET_ATIME_TO	0x080u	/* to the message's; else to now */
#define P9_SET_MTIME_TO	0x100u
#define P9_SET_ALL	0x1ffu

/* Rgetattr. */
#define P9_GET_BASIC	0x7ffull
#define P9_GET_BTIME	0x800ull

/* Tlopen, Tlcreate: Linux's generic numbers, which are not every host's. */
#define P9_OPEN_ACCESS	03u
#define P9_OPEN_EXCL	0200u
#define P9_OPEN_TRUNC	01000u
#define P9_OPEN_DSYNC	010000u
#define P9_OPEN_DIRECTORY 0200000u
#define P9_OPEN_NOATIME	01000000u
#define P9_OPEN_SYNC	04000000u

#define P9_UNLINK_DIR	0x200u	/* Tunlinkat: a directory */

enum p9_lock_type { P9_LOCK_READ, P9_LOCK_WRITE, P9_LOCK_UNLOCK };
enum p9_lock_status { P9_LOCK_SUCCESS, P9_LOCK_BLOCKED, P9_LOCK_ERROR, P9_LOCK_GRACE };
#define P9_LOCK_CLIENT	64u	/* bytes of a client's name that we keep */

#endif
