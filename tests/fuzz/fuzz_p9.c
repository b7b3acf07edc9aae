/*
 * 9P messages of a hostile client: whatever comes, the server answers, and not a byte outside
 * of the export is read or written.
 *
 * An input is a list of messages, each two bytes of length (little-endian), then the message from its
 * type on; size and tag are put in here, so that what is tried reaches the calls.  A length with its
 * highest bit set has its size wrong by one.  The session has a version and fid 0 to begin with.
 */
#include "fuzz_p9.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "p9/p9.h"

#define ROOM		65536u
#define MESSAGES_MAX	64u

struct shot {
	struct p9_request r;
	struct iovec data, wdata;
	uint8_t message[ROOM];
	uint8_t room[8192];
};

/*
 * What lies outside of the export, with every bit turned over, and compared by hand: a fuzzer that
 * saw it would write it into a file of its own and read it back.
 */
static const uint8_t secret_not[] = { 0xac, 0xba, 0xbc, 0xad, 0xba, 0xab, 0x9e, 0x91, 0x9b, 0xd2, 0xce, 0xcd };

static struct p9_server *server;
static struct shot shot;
static char top[64] = "/tmp/skep-fuzz-p9-XXXXXX";
unsigned long fuzz_answers, fuzz_successes;

static void die(const char *what)
{
	fprintf(stderr, "fuzz_p9: %s\n", what);
	abort();
}

static char *in_top(const char *name)
{
	static char path[2][128];
	static unsigned turn;

	turn ^= 1;
	snprintf(path[turn], sizeof(path[turn]), "%s/%s", top, name);
	return path[turn];
}

static void put(const char *name, const char *text)
{
	int fd = open(in_top(name), O_CREAT | O_WRONLY | O_TRUNC, 0600);

	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		die(name);
	close(fd);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *f)
{
	if (f->level > 0)
		remove(path);
	return 0;
}

/* The export as every input finds it. */
static void furnish(void)
{
	nftw(in_top("share"), remove_one, 16, FTW_DEPTH | FTW_PHYS);
	put("share/f", "hello world");
	mkdir(in_top("share/d"), 0700);
	put("share/d/g", "x");
	if (symlink("../secret", in_top("share/link")) || symlink("..", in_top("share/up")) ||
	    mkfifo(in_top("share/fifo"), 0600))
		die("furnish");
}

static void finish(void)
{
	p9_server_destroy(server);
	nftw(top, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	rmdir(top);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	char secret[sizeof(secret_not) + 1] = "";
	struct skep_error e = { "" };
	struct p9_options o;

	if (!mkdtemp(top))
		die("mkdtemp");
	mkdir(in_top("share"), 0700);
	for (size_t i = 0; i < sizeof(secret_not); i++)
		secret[i] = (char)~secret_not[i];
	put("secret", secret);
	p9_options_init(&o);
	o.path = in_top("share");
	o.workers = 2;
	o.fids = 64;
	o.files = 64;
	server = p9_server_create(&o, "fuzz", &e);
	if (!server)
		die(e.text);
	atexit(finish);
	return 0;
}

static bool is_secret(const uint8_t *p)
{
	unsigned differs = 0;

	for (size_t i = 0; i < sizeof(secret_not); i++)
		differs |= (uint8_t)(p[i] ^ secret_not[i] ^ 0xff);
	return !differs;
}

static bool holds_secret(const uint8_t *p, size_t len)
{
	for (size_t i = 0; i + sizeof(secret_not) <= len; i++)
		if (is_secret(p + i))
			return true;
	return false;
}

static void check_answer(const struct p9_request *r)
{
	if (!r->reply_len)
		return;
	fuzz_answers++;
	fuzz_successes += r->reply[4] != P9_RLERROR;
	if (r->reply_len < P9_HEAD || r->reply_len > sizeof(r->reply) ||
	    r->reply_len + r->data > r->reply_room || load32(r->reply) != r->reply_len + r->data ||
	    (r->data && r->reply[4] != P9_TREAD + 1 && r->reply[4] != P9_TREADDIR + 1))
		die("form of an answer");
	if (holds_secret(shot.room, r->data))
		die("the secret was read");
}

static void answer(struct p9_request *r)
{
	check_answer(r);
}

static void release(struct p9_request *r)
{
}

static void send_message(struct p9_session *ss, const uint8_t *body, size_t len, bool off_by_one)
{
	uint32_t size = (uint32_t)(P9_HEAD + len - 1);	/* the type is the body's first byte */

	store32(shot.message, size + off_by_one);
	shot.message[4] = body[0];
	store16(shot.message + 5, 1);
	memcpy(shot.message + P9_HEAD, body + 1, len - 1);
	shot.r = (struct p9_request){ .session = ss, .message = shot.message, .len = size,
				      .reply_room = sizeof(shot.room), .answer = answer, .release = release };
	shot.data = (struct iovec){ shot.room, sizeof(shot.room) - P9_READ_HEAD };
	shot.r.rdata = &shot.data;
	shot.r.nrdata = 1;
	if (body[0] == P9_TWRITE && size >= P9_WRITE_HEAD) {
		shot.r.len = P9_WRITE_HEAD;
		shot.wdata = (struct iovec){ shot.message + P9_WRITE_HEAD, size - P9_WRITE_HEAD };
		shot.r.wdata = &shot.wdata;
		shot.r.nwdata = 1;
	}
	p9_submit(&shot.r);
	p9_session_drain(ss);
}

static void check_outside(void)
{
	uint8_t buf[16] = "";
	int fd = open(in_top("secret"), O_RDONLY), n = 0;
	DIR *d = opendir(top);

	if (fd < 0 || read(fd, buf, 16) != sizeof(secret_not) || !is_secret(buf))
		die("the secret was changed");
	close(fd);
	while (d && readdir(d))
		n++;
	closedir(d);
	if (n != 4)
		die("something was made outside of the export");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const uint8_t version[] = "\x64\0\x20\0\0\x08\0" "9P2000.L";
	static const uint8_t attach[] = "\x68\0\0\0\0\xff\xff\xff\xff\0\0\0\0\0\0\0";
	struct p9_session *ss = p9_session_create(server);

	if (!ss)
		die("no memory");
	furnish();
	send_message(ss, version, sizeof(version) - 1, false);
	send_message(ss, attach, sizeof(attach), false);
	for (unsigned n = 0; len > 2 && n < MESSAGES_MAX; n++) {
		uint16_t word = load16(data);
		size_t now = MIN((size_t)(word & 0x7fff), len - 2);

		data += 2;
		len -= 2;
		if (now && now < ROOM - P9_HEAD)
			send_message(ss, data, now, word >> 15);
		data += now;
		len -= now;
	}
	p9_session_destroy(ss);
	check_outside();
	return 0;
}
