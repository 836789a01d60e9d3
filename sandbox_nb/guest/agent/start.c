#include "start.h"

#include "await.h"
#include "cgroup.h"
#include "process.h"
#include "setup.h"
#include "spawn.h"
#include "standard.h"
#include "strings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A StartRequest on its way to a process. */
struct start {
	struct bytes id;
	struct bytes cwd;
	struct bytes user_spec;
	struct strings argv;
	struct strings environment;
	struct stdio_request stdio;
	struct user user;
	char *folder;
	const char *problem;
};

static void take_argument(struct start *start, struct bytes text)
{
	if (!strings_add(&start->argv, text))
		start->problem = "an argument holds a NUL byte, or there is no memory";
}

static void take_variable(struct start *start, struct bytes text)
{
	if (text.len == 0 || text.at[0] == '=' || !memchr(text.at, '=', text.len))
		start->problem = "an element of env is not KEY=VALUE";
	else if (!strings_add(&start->environment, text))
		start->problem = "an element of env holds a NUL byte, or there is no memory";
}

static void take_tty(struct start *start, struct bytes message)
{
	start->stdio.tty = true;
	if (!window_size_parse(message, &start->stdio.size))
		start->problem = "a terminal has at most 65535 rows and columns";
}

static void take_field(struct start *start, const struct pb_field *field)
{
	switch (field->tag) {
	case PB_BYTES(1):
		start->id = field->bytes;
		break;
	case PB_BYTES(2):
		take_argument(start, field->bytes);
		break;
	case PB_BYTES(3):
		take_variable(start, field->bytes);
		break;
	case PB_BYTES(4):
		start->cwd = field->bytes;
		break;
	case PB_BYTES(5):
		start->user_spec = field->bytes;
		break;
	case PB_BYTES(6):
	case PB_BYTES(7):
	case PB_BYTES(8):
		start->stdio.streams[(field->tag >> 3) - 6] = field->bytes;
		break;
	case PB_BYTES(9):
		take_tty(start, field->bytes);
		break;
	}
}

static bool check_request(struct call *call, struct start *start)
{
	if (start->id.len < 1 || start->id.len > PROCESS_ID_MAX || !bytes_printable(start->id))
		start->problem = "the id of a process has 1 to 64 printable ASCII characters";
	if (start->argv.len == 0 && !start->problem)
		start->problem = "args is empty: there is no command";
	if (start->problem) {
		call_fail(call, STATUS_INVALID_ARGUMENT, "%s", start->problem);
		return false;
	}
	if (process_find(start->id)) {
		call_fail(call, STATUS_ALREADY_EXISTS, "process '%.*s' is there already; wait for it first",
			  (int)start->id.len, (const char *)start->id.at);
		return false;
	}
	if (!process_room()) {
		call_fail(call, STATUS_RESOURCE_EXHAUSTED, "512 processes run already; end some first");
		return false;
	}
	return true;
}

static bool find_user(struct call *call, struct start *start)
{
	const char *missing = "";
	char *spec = bytes_string(start->user_spec);
	bool found = spec && user_find(spec, &start->user, &missing);
	if (!found)
		call_fail(call, STATUS_NOT_FOUND, "user '%.*s': there is no '%.64s'", (int)MIN(start->user_spec.len, 128),
			  (const char *)start->user_spec.at, missing);
	free(spec);
	return found;
}

static bool is_folder(const char *path)
{
	struct stat status;
	return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

static bool find_folder(struct call *call, struct start *start)
{
	const char *home = is_folder(start->user.home) ? start->user.home : "/";
	start->folder = start->cwd.len ? bytes_string(start->cwd) : strdup(home);
	if (!start->folder || start->folder[0] != '/')
		call_fail(call, STATUS_INVALID_ARGUMENT, "cwd '%.*s' is not an absolute path",
			  (int)MIN(start->cwd.len, 256), (const char *)start->cwd.at);
	else if (!is_folder(start->folder))
		call_fail(call, STATUS_NOT_FOUND, "cwd '%.256s' is not there, or no folder", start->folder);
	else
		return true;
	return false;
}

/* Forks with everything in place; the process is the table's from here on, or gone. */
static void launch(struct call *call, struct start *start, struct process *process)
{
	struct stdio stdio;
	struct buffer response = {0};
	if (!stdio_open(&stdio, call, &start->stdio, &start->user, &process->input,
			&process->lates)) {
		process_free(process);
		return;
	}
	process->cgroup = cgroup_make();
	struct spawn request = {
		.argv = start->argv.at,
		.environment = start->environment.at,
		.cwd = start->folder,
		.user = &start->user,
		.stdio = {stdio.child[0], stdio.child[1], stdio.child[2]},
		.tty = start->stdio.tty,
		.cgroup = cgroup_open(process->cgroup),
	};
	process->pid = spawn(&request);
	int error = errno;
	if (request.cgroup >= 0)
		close(request.cgroup);
	stdio_close(&stdio);
	if (process->pid < 0) {
		call_fail(call, STATUS_RESOURCE_EXHAUSTED, "the process cannot be forked: %s", strerror(error));
		process_free(process);
		return;
	}
	process_add(process);
	pb_put_varint(&response, 1, (uint64_t)process->pid);
	call_reply(call, &response);
	buffer_free(&response);
}

static void begin(struct call *call, struct start *start)
{
	if (!check_request(call, start) || !find_user(call, start) || !find_folder(call, start))
		return;
	struct process *process = process_new(start->id);
	if (process && environment_complete(&start->environment, &start->user, start->stdio.tty))
		launch(call, start, process);
	else
		call_fail(call, STATUS_RESOURCE_EXHAUSTED, "there is no memory for the process");
}

void process_start(struct call *call, struct bytes request)
{
	struct start start = {0};
	struct pb_reader in = pb_read(request);
	if (!setup_done(call))
		return;
	for (struct pb_field field; pb_next(&in, &field);)
		take_field(&start, &field);
	if (call_decoded(call, &in) && (stdio_ready(&start.stdio) || !await_stream(call, request)))
		begin(call, &start);
	strings_free(&start.argv);
	strings_free(&start.environment);
	free(start.folder);
}
