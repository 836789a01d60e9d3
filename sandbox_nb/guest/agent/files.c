#include "files.h"

#include "file_work.h"
#include "job.h"
#include "setup.h"
#include "stream.h"

#include <string.h>

static bool take_path(struct file_request *request, struct bytes path)
{
	if (path.len < 1 || path.len >= PATH_MAX || path.at[0] != '/' || memchr(path.at, 0, path.len))
		return false;
	memcpy(request->path, path.at, path.len);
	request->path[path.len] = 0;
	return true;
}

/* A field has the same number in every request of the service; each has those it needs. */
static void take_field(struct file_request *request, const struct pb_field *field)
{
	switch (field->tag) {
	case PB_VARINT(3):
		request->mode = field->varint & 07777;
		break;
	case PB_VARINT(4):
		request->size = field->varint;
		break;
	case PB_VARINT(5):
		request->no_follow = field->varint;
		break;
	case PB_VARINT(6):
		request->parents = field->varint;
		break;
	case PB_VARINT(7):
		request->exist_ok = field->varint;
		break;
	case PB_VARINT(8):
		request->recursive = field->varint;
		break;
	}
}

/* Fails the call and returns false when there is nothing to work on. `stream` is the name of one, if one is given. */
static bool take_request(struct call *call, struct bytes message, struct file_request *request, struct bytes *stream)
{
	struct bytes path = {0};
	struct pb_reader in = pb_read(message);
	*request = (struct file_request){0};
	*stream = (struct bytes){0};
	for (struct pb_field field; pb_next(&in, &field);)
		if (field.tag == PB_BYTES(1))
			path = field.bytes;
		else if (field.tag == PB_BYTES(2))
			*stream = field.bytes;
		else
			take_field(request, &field);
	if (!setup_done(call) || !call_decoded(call, &in))
		return false;
	if (take_path(request, path))
		return true;
	call_fail(call, STATUS_INVALID_ARGUMENT, "'%.*s' is not an absolute path of at most %d bytes",
		  (int)MIN(path.len, 256), (const char *)path.at, PATH_MAX - 1);
	return false;
}

static void begin(struct call *call, struct bytes message, void (*work)(void *))
{
	struct file_request request;
	struct bytes stream;
	if (take_request(call, message, &request, &stream))
		job_start(call, -1, work, &request);
}

static void begin_with_stream(struct call *call, struct bytes message, void (*work)(void *))
{
	struct file_request request;
	struct bytes name;
	const char *problem;
	if (!take_request(call, message, &request, &name))
		return;
	struct stream *stream = stream_find(name, &problem);
	if (stream)
		job_start(call, stream_claim(stream), work, &request);
	else
		call_fail(call, STATUS_NOT_FOUND, problem, (int)MIN(name.len, 160), (const char *)name.at);
}

void files_read(struct call *call, struct bytes request)
{
	begin_with_stream(call, request, read_work);
}

void files_write(struct call *call, struct bytes request)
{
	begin_with_stream(call, request, write_work);
}

void files_stat(struct call *call, struct bytes request)
{
	begin(call, request, stat_work);
}

void files_list(struct call *call, struct bytes request)
{
	begin_with_stream(call, request, list_work);
}

void files_mkdir(struct call *call, struct bytes request)
{
	begin(call, request, mkdir_work);
}

void files_remove(struct call *call, struct bytes request)
{
	begin(call, request, remove_work);
}

void files_pack(struct call *call, struct bytes request)
{
	begin_with_stream(call, request, pack_work);
}

void files_unpack(struct call *call, struct bytes request)
{
	begin_with_stream(call, request, unpack_work);
}
