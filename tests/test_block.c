/*
 * Block backends: both engines on files, what the host refuses or does by halves, locks, and an NBD
 * server that dies and comes back, with writes that it had acknowledged and lost.
 */
#include "disk_helper.h"
#include "vm_helper.h"

#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <errno.h>
#include <sys/types.h>

#include "vm/loop.h"

/* <signal.h> and <sys/wait.h> have names that the processor's headers have as well. */
int kill(pid_t pid, int sig);
pid_t waitpid(pid_t pid, int *status, int options);
#define WNOHANG	1
#define STOP	19
#define CONT	18

#define SIZE	(1u * MiB)

struct one {
	struct block_request r;
	struct iovec v[2];
	bool done;
	int err;
};

static void done(struct block_request *r, int err)
{
	struct one *o = container_of(r, struct one, r);

	assert_false(o->done);
	o->done = true;
	o->err = err;
}

static void start(struct block *b, struct one *o, enum block_op op, uint64_t offset, void *buf, size_t len)
{
	*o = (struct one){ .r = { .op = op, .offset = offset, .len = len, .done = done } };
	/* Two pieces, the first of them of any length. */
	o->v[0] = (struct iovec){ buf, len / 3 };
	o->v[1] = (struct iovec){ (uint8_t *)buf + len / 3, len - len / 3 };
	o->r.iov = o->v;
	o->r.niov = 2;
	block_submit(b, &o->r);
}

static int whole(struct block *b, enum block_op op, uint64_t offset, void *buf, size_t len)
{
	struct one o;

	start(b, &o, op, offset, buf, len);
	block_run(b);
	block_drain(b);
	assert_true(o.done);
	return o.err;
}

static struct block *open_block(struct vm *vm, const struct image_options *io, enum block_engine engine)
{
	struct skep_error e = { "" };
	struct block *b = block_create(vm, io->owner, disk_open(io), engine, &e);

	if (!b)
		fail_msg("%s", e.text);
	return b;
}

static void engine_works(void **state, enum block_engine engine, bool nocache)
{
	static uint8_t buf[64 * 1024], back[64 * 1024];
	struct vm *vm = test_vm(CLOCK_MODE_REALTIME);
	char path[DISK_PATH];
	struct image_options io = { .owner = "pci.0.3.0", .path = disk_path(state, "raw", path),
				    .nocache = nocache };
	struct skep_error e = { "" };
	struct one many[64];
	struct block *b;
	unsigned i;

	disk_make(path, SIZE);
	if (nocache) {
		int fd = open(path, O_RDONLY | O_DIRECT);

		if (fd < 0) {
			printf("SKIP: no O_DIRECT in %s\n", path);
			test_vm_free(vm);
			skip();
		}
		close(fd);
	}
	device_lock(vm);
	b = open_block(vm, &io, engine);
	assert_ptr_equal(vm->disks, b);
	for (i = 0; i < sizeof(buf); i++)
		buf[i] = (uint8_t)(i * 7 + i / 512);
	assert_int_equal(whole(b, BLOCK_WRITE, 512, buf, sizeof(buf)), 0);
	assert_int_equal(whole(b, BLOCK_READ, 512, back, sizeof(back)), 0);
	assert_memory_equal(buf, back, sizeof(buf));
	assert_int_equal(whole(b, BLOCK_FLUSH, 0, NULL, 0), 0);
	assert_int_equal(whole(b, BLOCK_ZERO, 1024, NULL, 4096), 0);
	assert_int_equal(whole(b, BLOCK_DISCARD, 8192, NULL, 4096), 0);
	assert_int_equal(whole(b, BLOCK_READ, 512, back, 8192), 0);
	assert_memory_equal(buf, back, 512);
	for (i = 512; i < 512 + 4096; i++)
		assert_int_equal(back[i], 0);
	/* The end of the disk, and beyond. */
	assert_int_equal(whole(b, BLOCK_READ, SIZE - 512, back, 512), 0);
	assert_int_equal(whole(b, BLOCK_READ, SIZE, back, 512), -EIO);
	assert_int_equal(whole(b, BLOCK_WRITE, SIZE - 512, back, 1024), -EIO);
	assert_int_equal(whole(b, BLOCK_READ, UINT64_MAX - 511, back, 512), -EIO);
	/* Many at once; they end on the vm thread if nobody waits. */
	for (i = 0; i < ARRAY_SIZE(many); i++)
		start(b, &many[i], i % 8 == 7 ? BLOCK_FLUSH : BLOCK_READ, 8192 * i, buf + 512 * i,
		      i % 8 == 7 ? 0 : 512);
	block_run(b);
	for (i = 0; i < ARRAY_SIZE(many); i++)
		while (!many[i].done) {
			device_unlock(vm);
			loop_iterate(vm);
			device_lock(vm);
		}
	assert_int_equal(load64(buf + 512 * 40), 8192 * 40 / 512 + 1);
	/* The file becomes shorter under us: what is not there is an error and no old bytes. */
	assert_int_equal(truncate(path, 4096 + 1024), 0);
	assert_int_equal(whole(b, BLOCK_READ, 4096, back, 4096), -EIO);
	/* And larger. */
	assert_int_equal(truncate(path, 2 * SIZE), 0);
	assert_int_equal(block_refresh(b, &e), 0);
	assert_int_equal(block_size(b), 2 * SIZE);
	assert_int_equal(whole(b, BLOCK_WRITE, 2 * SIZE - 512, buf, 512), 0);
	block_destroy(b);
	assert_null(vm->disks);
	device_unlock(vm);
	test_vm_free(vm);
}

static void test_threads(void **state)
{
	engine_works(state, BLOCK_THREADS, false);
	engine_works(state, BLOCK_THREADS, true);
}

static void test_io_uring(void **state)
{
	engine_works(state, BLOCK_AUTO, false);
	engine_works(state, BLOCK_AUTO, true);
}

static void test_locks(void **state)
{
	char path[DISK_PATH];
	struct image_options rw = { .owner = "pci.0.3.0", .path = disk_path(state, "raw", path) }, ro = rw;
	struct skep_error e = { "" };
	struct image *a, *b;
	uint8_t buf[512];

	ro.read_only = true;
	disk_make(path, SIZE);
	a = disk_open(&rw);
	assert_null(image_open(&rw, &e));
	assert_non_null(strstr(e.text, "in use"));
	assert_null(image_open(&ro, &e));
	image_close(a);
	a = disk_open(&ro);
	b = disk_open(&ro);
	assert_null(image_open(&rw, &e));
	assert_int_equal(image_get(b, 0, buf, 512), 0);
	image_close(a);
	image_close(b);
	/* What is not a disk, says why. */
	ro.path = "/dev/null";
	assert_null(image_open(&ro, &e));
	assert_non_null(strstr(e.text, "neither a file"));
	ro.path = "/nonexistent/x";
	assert_null(image_open(&ro, &e));
	assert_int_equal(truncate(path, 1000), 0);
	assert_null(image_open(&rw, &e));
	assert_non_null(strstr(e.text, "multiple of 512"));
	assert_int_equal(truncate(path, 0), 0);
	assert_null(image_open(&rw, &e));
	assert_non_null(strstr(e.text, "empty"));
}

/* ---- NBD --------------------------------------------------------------------------- */

static pid_t serve(const char *socket, const char *image, const char *format)
{
	pid_t pid;
	int i;

	unlink(socket);
	pid = fork();
	if (!pid) {
		int null = open("/dev/null", O_WRONLY);

		dup2(null, 2);
		execlp("qemu-nbd", "qemu-nbd", "-t", "-f", format, "-k", socket, image, NULL);
		_exit(127);
	}
	for (i = 0; i < 500 && access(socket, F_OK); i++) {
		usleep(10000);
		if (waitpid(pid, NULL, WNOHANG))
			return -1;
	}
	return pid;
}

static void stop_server(pid_t pid)
{
	kill(pid, 9);
	waitpid(pid, NULL, 0);
}

static void test_nbd(void **state)
{
	char path[DISK_PATH], socket[DISK_PATH], uri[2 * DISK_PATH], copy[3 * DISK_PATH];
	static uint8_t buf[65536], back[65536];
	struct image_options io = { .owner = "pci.0.3.0", .path = uri, .retry_s = 20 };
	struct skep_error e = { "" };
	struct image *im;
	pid_t server;
	unsigned i;

	disk_make(disk_path(state, "n", path), SIZE);
	disk_path(state, "sock", socket);
	snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s", socket);
	assert_null(image_open(&io, &e));
	assert_non_null(strstr(e.text, "nbd+unix"));
	server = serve(socket, path, "raw");
	if (server < 0) {
		printf("SKIP: no qemu-nbd\n");
		skip();
	}
	im = disk_open(&io);
	assert_int_equal(im->size, SIZE);
	assert_int_equal(image_get(im, 512 * 9, back, 512), 0);
	assert_int_equal(load64(back), 10);
	for (i = 0; i < sizeof(buf); i++)
		buf[i] = (uint8_t)(i / 512 + 1);
	assert_int_equal(image_put(im, 0, buf, sizeof(buf)), 0);
	assert_int_equal(im->ops->zero(im, 512, 512, false), 0);
	memset(buf + 512, 0, 512);
	assert_int_equal(im->ops->flush(im), 0);
	assert_int_equal(image_get(im, 0, back, sizeof(back)), 0);
	assert_memory_equal(buf, back, sizeof(buf));
	/*
	 * Written, acknowledged, not flushed; the server dies and with it what it had in memory: the file
	 * is put back to what it was.  Nothing may be missing when it comes again.
	 */
	snprintf(copy, sizeof(copy), "cp %s %s.old", path, path);
	assert_int_equal(system(copy), 0);
	memset(buf + 1024, 0x77, 4096);
	assert_int_equal(image_put(im, 1024, buf + 1024, 4096), 0);
	assert_int_equal(im->ops->zero(im, 1024, 512, true), 0);
	memset(buf + 1024, 0, 512);
	stop_server(server);
	snprintf(copy, sizeof(copy), "cp %s.old %s", path, path);
	assert_int_equal(system(copy), 0);
	server = serve(socket, path, "raw");
	assert_int_equal(image_get(im, 0, back, sizeof(back)), 0);
	assert_memory_equal(buf, back, sizeof(buf));
	assert_int_equal(im->ops->flush(im), 0);
	/* It comes back as another disk: no byte of that one is read or written. */
	stop_server(server);
	assert_int_equal(truncate(path, SIZE / 2), 0);
	server = serve(socket, path, "raw");
	assert_int_equal(image_get(im, 0, back, 512), -EIO);
	assert_int_equal(image_put(im, 0, back, 512), -EIO);
	image_close(im);
	stop_server(server);
}

/* Nobody waits for ever. */
static void test_nbd_gone(void **state)
{
	char path[DISK_PATH], socket[DISK_PATH], uri[2 * DISK_PATH];
	struct image_options io = { .owner = "pci.0.3.0", .path = uri, .retry_s = 1 };
	struct vm *vm = test_vm(CLOCK_MODE_REALTIME);
	static uint8_t buf[4096];
	struct one o;
	struct block *b;
	pid_t server;

	disk_make(disk_path(state, "n", path), SIZE);
	snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s", disk_path(state, "sock", socket));
	server = serve(socket, path, "raw");
	if (server < 0) {
		printf("SKIP: no qemu-nbd\n");
		test_vm_free(vm);
		skip();
	}
	device_lock(vm);
	b = open_block(vm, &io, BLOCK_AUTO);
	stop_server(server);
	assert_int_equal(whole(b, BLOCK_READ, 0, buf, 512), -EIO);
	server = serve(socket, path, "raw");
	assert_int_equal(whole(b, BLOCK_READ, 512, buf, 512), 0);
	assert_int_equal(load64(buf), 2);
	block_destroy(b);
	/* A machine that is to stand takes its requests back, undone. */
	io.retry_s = 1000;
	b = open_block(vm, &io, BLOCK_AUTO);
	kill(server, STOP);
	start(b, &o, BLOCK_WRITE, 0, buf, 512);
	block_run(b);
	block_hold(b);
	assert_true(o.done);
	assert_int_equal(o.err, -ECANCELED);
	kill(server, CONT);
	assert_int_equal(whole(b, BLOCK_WRITE, 0, buf, 512), 0);
	block_destroy(b);
	device_unlock(vm);
	stop_server(server);
	test_vm_free(vm);
}

/* ---- A server that dies in the middle of a flush ------------------------ */

#define FORGETFUL_SIZE	(32u * MiB)

struct forgetful {
	int listener;
	uint8_t *disk;		/* what it has on the second connection */
	unsigned flushes;
};

static bool get_all(int fd, void *buf, size_t len)
{
	return !len || recv(fd, buf, len, MSG_WAITALL) == (ssize_t)len;
}

/* NBD's old handshake, as of its protocol description: magic, size, flags, and no options. */
static int accept_client(int listener)
{
	uint8_t hello[152] = "NBDMAGIC";
	uint64_t magic = __builtin_bswap64(0x00420281861253ull), size = __builtin_bswap64(FORGETFUL_SIZE);
	uint32_t flags = __builtin_bswap32(1 | 4);	/* there are some: it can flush */
	int fd = accept(listener, NULL, NULL);

	memcpy(hello + 8, &magic, 8);
	memcpy(hello + 16, &size, 8);
	memcpy(hello + 24, &flags, 4);
	return fd >= 0 && send(fd, hello, sizeof(hello), MSG_NOSIGNAL) == sizeof(hello) ? fd : -1;
}

/* Keeps what is written in its memory only, and is gone instead of flushing it, once. */
static void *forgetful_main(void *opaque)
{
	struct forgetful *f = opaque;
	uint8_t request[28], reply[16] = { 0x67, 0x44, 0x66, 0x98 };
	int fd = accept_client(f->listener);

	while (fd >= 0 && get_all(fd, request, sizeof(request))) {
		uint32_t len = __builtin_bswap32(load32(request + 24));
		uint64_t offset = __builtin_bswap64(load64(request + 16));
		unsigned type = request[7];

		if (type == 2)
			break;
		if (type == 1 && !get_all(fd, f->disk + offset, len))
			break;
		if (type == 3 && !f->flushes++) {
			memset(f->disk, 0, FORGETFUL_SIZE);
			close(fd);
			fd = accept_client(f->listener);
			continue;
		}
		memcpy(reply + 8, request + 8, 8);
		send(fd, reply, sizeof(reply), MSG_NOSIGNAL);
	}
	close(fd);
	return NULL;
}

static void forgetful_server(void **state, size_t len, bool sync)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct forgetful f = { .listener = socket(AF_UNIX, SOCK_STREAM, 0), .disk = calloc(1, FORGETFUL_SIZE) };
	char path[DISK_PATH], uri[DISK_PATH + 40];
	struct image_options io = { .owner = "pci.0.3.0", .path = uri, .retry_s = 20, .sync = sync };
	uint8_t *buf = malloc(len);
	struct image *im;
	pthread_t t;

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%.100s", disk_path(state, sync ? "s" : "l", path));
	snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s", path);
	assert_int_equal(bind(f.listener, (void *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(f.listener, 4), 0);
	assert_int_equal(pthread_create(&t, NULL, forgetful_main, &f), 0);
	im = disk_open(&io);
	memset(buf, 0xa5, len);
	assert_int_equal(image_put(im, 4096, buf, len), 0);
	assert_int_equal(im->ops->flush(im), 0);
	assert_memory_equal(f.disk + 4096, buf, len);
	/* The one that it died of, and its repetition; then the guest's own. */
	assert_int_equal(f.flushes, sync || len > 16 * MiB ? 3 : 2);
	image_close(im);
	pthread_join(t, NULL);
	close(f.listener);
	free(f.disk);
	free(buf);
}

/* A write that is too large to be kept until the server has flushed it, and each one with sync. */
static void test_nbd_forgets(void **state)
{
	forgetful_server(state, 8192, false);
	forgetful_server(state, 4096, true);
}

static void test_nbd_forgets_much(void **state)
{
	forgetful_server(state, 17 * MiB, false);
}

/* ---- Sectors of one block ---------------------------------------------- */

struct neighbour {
	struct image *im;
	unsigned sector;
	bool lost;
};

static void *write_sector(void *opaque)
{
	struct neighbour *n = opaque;
	uint8_t buf[512], back[512];
	unsigned i;

	for (i = 1; i < 3000 && !n->lost; i++) {
		memset(buf, (int)i, sizeof(buf));
		image_put(n->im, n->sector * 512ull, buf, sizeof(buf));
		image_get(n->im, n->sector * 512ull, back, sizeof(back));
		n->lost = memcmp(buf, back, sizeof(buf));
	}
	return NULL;
}

/* nocache writes whole blocks: nobody's sector in between may be written back as it was. */
static void test_neighbours(void **state)
{
	char path[DISK_PATH];
	struct image_options io = { .owner = "pci.0.3.0", .path = disk_path(state, "raw", path) };
	struct neighbour n[4];
	pthread_t t[4];
	struct image *im;
	unsigned i;

	disk_make(path, SIZE);
	im = disk_open(&io);
	im->align = 4096;		/* as with O_DIRECT, which not every file system has */
	for (i = 0; i < 4; i++) {
		n[i] = (struct neighbour){ im, i, false };
		assert_int_equal(pthread_create(&t[i], NULL, write_sector, &n[i]), 0);
	}
	for (i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	for (i = 0; i < 4; i++)
		assert_false(n[i].lost);
	image_close(im);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, disk_dir_setup, disk_dir_teardown)
	const struct CMUnitTest tests[] = {
		T(test_threads), T(test_io_uring), T(test_locks), T(test_neighbours), T(test_nbd_forgets),
		T(test_nbd_forgets_much), T(test_nbd), T(test_nbd_gone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
