/* Reads and writes that finish: what was interrupted or cut short goes on. */
#include "snapshot/container.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/util.h"

const char *snap_remedy(int err)
{
	return err == ENOSPC || err == EDQUOT ? ": make room, or name a file elsewhere" : "";
}

static int write_failed(int err, uint64_t offset, struct skep_error *e)
{
	unsigned long long at = offset;

	switch (err) {
	case ENOSPC:
	case EDQUOT:
		return skep_fail(e, err, "no space left for the snapshot at byte %llu (%s)%s", at,
				 strerror(err), snap_remedy(err));
	case EFBIG:
		return skep_fail(e, err, "the snapshot may not grow beyond byte %llu (%s): raise "
				 "ulimit -f, or use a file system that takes larger files", at,
				 strerror(err));
	default:
		return skep_fail(e, err, "cannot write the snapshot at byte %llu: %s", at,
				 strerror(err));
	}
}

int snap_pwritev(int fd, struct iovec *iov, int n, uint64_t offset, struct skep_error *e)
{
	while (n) {
		ssize_t got;

		if (!iov->iov_len) {
			iov++;
			n--;
			continue;
		}
		got = pwritev(fd, iov, MIN(n, 1024), offset);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return write_failed(got ? errno : ENOSPC, offset, e);
		offset += got;
		for (; n && (size_t)got >= iov->iov_len; iov++, n--)
			got -= iov->iov_len;
		if (n) {
			iov->iov_base = (char *)iov->iov_base + got;
			iov->iov_len -= got;
		}
	}
	return 0;
}

int snap_pwrite(int fd, const void *data, size_t len, uint64_t offset, struct skep_error *e)
{
	struct iovec iov = { (void *)data, len };

	return snap_pwritev(fd, &iov, 1, offset, e);
}

int snap_pread(int fd, void *data, size_t len, uint64_t offset, struct skep_error *e)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(fd, (char *)data + done, len - done, offset + done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return skep_fail(e, errno, "cannot be read at byte %llu: %s",
					 (unsigned long long)(offset + done), strerror(errno));
		if (!n)
			return skep_fail(e, ENODATA, "ends at byte %llu, and byte %llu is due: it "
					 "was cut short", (unsigned long long)(offset + done),
					 (unsigned long long)(offset + len - 1));
		done += n;
	}
	return 0;
}
