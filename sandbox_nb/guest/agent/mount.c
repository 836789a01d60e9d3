#include "mount.h"

#include "job.h"
#include "mounting.h"
#include "setup.h"
#include "strings.h"
#include "unmounting.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* Targets of what was mounted here and not unmounted here, the latest last. */
static struct strings mounted;

static void forget_target(const char *target)
{
	for (size_t i = mounted.len; i > 0; i--) {
		char **at = &mounted.at[i - 1];
		if (strcmp(*at, target) != 0)
			continue;
		free(*at);
		memmove(at, at + 1, (mounted.len - i + 1) * sizeof *at); /* with the NULL at the end */
		mounted.len--;
		return;
	}
}

static bool is_target(const char *path)
{
	return path && path[0] == '/' && path[strspn(path, "/")] && strlen(path) < PATH_MAX;
}

static void plan_free(struct mount_plan *plan)
{
	for (size_t i = 0; i < plan->n; i++) {
		free(plan->specs[i].type);
		free(plan->specs[i].source);
		free(plan->specs[i].target);
	}
	free(plan);
}

static void take_text(char **text, struct bytes bytes)
{
	free(*text);
	*text = bytes_string(bytes);
}

/* NULL, or what is wrong with the MountSpec. */
static const char *take_spec(struct mount_spec *spec, struct bytes message)
{
	const char *problem = NULL;
	struct pb_reader in = pb_read(message);
	spec->type = strdup("");
	spec->source = strdup("");
	for (struct pb_field field; pb_next(&in, &field) && !problem;)
		switch (field.tag) {
		case PB_BYTES(1):
			take_text(&spec->type, field.bytes);
			break;
		case PB_BYTES(2):
			take_text(&spec->source, field.bytes);
			break;
		case PB_BYTES(3):
			take_text(&spec->target, field.bytes);
			break;
		case PB_BYTES(4):
			problem = mount_options_add(&spec->options, field.bytes);
			break;
		}
	if (problem)
		return problem;
	if (in.broken || !spec->type || !spec->source)
		return "it is no MountSpec, or holds a NUL byte";
	return is_target(spec->target) ? NULL : "target is not an absolute path, or the root";
}

/* False, and the call failed. */
static bool plan_take(struct call *call, struct mount_plan *plan, struct bytes message)
{
	if (plan->n == MAX_MOUNTS) {
		call_fail(call, STATUS_INVALID_ARGUMENT, "more than 64 mounts in one call");
		return false;
	}
	const char *problem = take_spec(&plan->specs[plan->n++], message);
	if (problem)
		call_fail(call, STATUS_INVALID_ARGUMENT, "mounts[%zu]: %s", plan->n - 1, problem);
	return !problem;
}

static bool plan_parse(struct call *call, struct mount_plan *plan, struct bytes request)
{
	struct pb_reader in = pb_read(request);
	for (struct pb_field field; pb_next(&in, &field);)
		if (field.tag == PB_BYTES(1) && !plan_take(call, plan, field.bytes))
			return false;
	return call_decoded(call, &in);
}

static void mounting_ended(void *context, bool done)
{
	struct mount_plan *plan = context;
	for (size_t i = 0; i < plan->n && done; i++)
		strings_add(&mounted, (struct bytes){(uint8_t *)plan->specs[i].target, strlen(plan->specs[i].target)});
	plan_free(plan);
}

void mount_all(struct call *call, struct bytes request)
{
	if (!setup_done(call))
		return;
	struct mount_plan *plan = calloc(1, sizeof *plan);
	if (!plan)
		call_fail(call, STATUS_RESOURCE_EXHAUSTED, "there is no memory for the mounts");
	else if (plan_parse(call, plan, request))
		job_start_told(call, mounting_work, plan, mounting_ended);
	else
		plan_free(plan);
}

static void unmounting_ended(void *context, bool done)
{
	if (done)
		forget_target(context);
	free(context);
}

void mount_unmount(struct call *call, struct bytes request)
{
	struct bytes path = {0};
	struct pb_reader in = pb_read(request);
	for (struct pb_field field; pb_next(&in, &field);)
		if (field.tag == PB_BYTES(1))
			path = field.bytes;
	if (!setup_done(call) || !call_decoded(call, &in))
		return;
	char *target = bytes_string(path);
	if (is_target(target)) {
		job_start_told(call, unmounting_work, target, unmounting_ended);
		return;
	}
	call_fail(call, STATUS_INVALID_ARGUMENT, "target '%.*s' is not an absolute path, or the root",
		  (int)MIN(path.len, 256), (const char *)path.at);
	free(target);
}

static void all_unmounted(void *context, bool done)
{
	(void)context;
	if (done)
		strings_free(&mounted);
}

void mount_unmount_all(struct call *call, struct bytes request)
{
	(void)request;
	if (setup_done(call))
		job_start_told(call, unmounting_all_work, &mounted, all_unmounted);
}
