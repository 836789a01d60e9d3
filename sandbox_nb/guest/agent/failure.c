#include "failure.h"

#include "job.h"

#include <errno.h>
#include <string.h>

enum status status_of_errno(int error)
{
	switch (error) {
	case ENOENT:
	case ENOTDIR:
	case ECONNREFUSED:
		return STATUS_NOT_FOUND;
	case EEXIST:
	case EADDRINUSE:
		return STATUS_ALREADY_EXISTS;
	case EACCES:
	case EPERM:
	case EROFS:
		return STATUS_PERMISSION_DENIED;
	case EINVAL:
	case EISDIR:
	case ENAMETOOLONG:
	case ELOOP:
		return STATUS_INVALID_ARGUMENT;
	case EBUSY:
	case ENOTEMPTY:
		return STATUS_FAILED_PRECONDITION;
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
	case EMLINK:
	case EMFILE:
	case ENFILE:
	case ENOMEM:
		return STATUS_RESOURCE_EXHAUSTED;
	default:
		return STATUS_UNKNOWN;
	}
}

_Noreturn void fail_with_errno(const char *path)
{
	job_fail(status_of_errno(errno), "%.400s: %s", path, strerror(errno));
}
