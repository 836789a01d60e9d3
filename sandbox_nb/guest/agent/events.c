#include "events.h"

#include <stdio.h>
#include <time.h>

#define NAMESPACE "sandbox_nb"
#define TYPE_PREFIX "type.googleapis.com/nerdbox.services.vmevents.v1."

static struct call *subscribers;

static void unsubscribe(struct call *call)
{
	for (struct call **link = &subscribers; *link; link = &(*link)->sibling)
		if (*link == call) {
			*link = call->sibling;
			return;
		}
}

void events_stream(struct call *call, struct bytes request)
{
	(void)request;
	call->dropped = unsubscribe;
	call->sibling = subscribers;
	subscribers = call;
}

static void put_timestamp(struct buffer *out, uint32_t number)
{
	struct timespec now;
	struct buffer inner = {0};
	clock_gettime(CLOCK_REALTIME, &now);
	pb_put_varint(&inner, 1, (uint64_t)now.tv_sec);
	pb_put_varint(&inner, 2, (uint64_t)now.tv_nsec);
	pb_put_message(out, number, &inner);
	buffer_free(&inner);
}

static void put_any(struct buffer *out, uint32_t number, const char *type, const struct buffer *event)
{
	char url[128];
	struct buffer inner = {0};
	snprintf(url, sizeof url, TYPE_PREFIX "%s", type);
	pb_put_string(&inner, 1, url);
	pb_put_message(&inner, 2, event);
	pb_put_message(out, number, &inner);
	buffer_free(&inner);
}

static void publish(const char *topic, const char *type, const struct buffer *event)
{
	struct buffer envelope = {0};
	if (!subscribers)
		return;
	put_timestamp(&envelope, 1);
	pb_put_string(&envelope, 2, NAMESPACE);
	pb_put_string(&envelope, 3, topic);
	put_any(&envelope, 4, type, event);
	for (struct call *call = subscribers, *next; call; call = next) {
		next = call->sibling;
		if (!call_room()) {
			unsubscribe(call);
			call_fail(call, STATUS_RESOURCE_EXHAUSTED, "too many events are unread; the stream ends");
		} else {
			call_send(call, &envelope);
		}
	}
	buffer_free(&envelope);
}

void events_started(const char *id, pid_t pid)
{
	struct buffer event = {0};
	pb_put_string(&event, 1, id);
	pb_put_varint(&event, 2, (uint64_t)pid);
	publish("/process/start", "ProcessStarted", &event);
	buffer_free(&event);
}

void events_exited(const char *id, pid_t pid, int exit_code, int signal)
{
	struct buffer event = {0};
	pb_put_string(&event, 1, id);
	pb_put_varint(&event, 2, (uint64_t)pid);
	pb_put_varint(&event, 3, (uint64_t)exit_code);
	pb_put_varint(&event, 4, (uint64_t)signal);
	publish("/process/exit", "ProcessExited", &event);
	buffer_free(&event);
}

void events_out_of_memory(const char *id)
{
	struct buffer event = {0};
	pb_put_string(&event, 1, id);
	publish("/process/oom", "OutOfMemory", &event);
	buffer_free(&event);
}
