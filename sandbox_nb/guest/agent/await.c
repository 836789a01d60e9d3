#include "await.h"

#include "loop.h"

#include <stdlib.h>

#define MAX_AWAITING 128
#define PATIENCE (2 * NS_PER_S)

/* A call that waits, with a copy of its request. */
struct awaiting {
	struct awaiting *next;
	struct call *call;
	struct buffer request;
	struct timer patience;
	unsigned round; /* it was last looked at in */
	bool over;
	bool goes_on; /* it waits again after having begun anew */
};

/* In the order in which they came. */
static struct awaiting *awaiting;
static unsigned n_awaiting;
static struct awaiting *beginning;

/* The link that leads to `one`, or with NULL to the end. */
static struct awaiting **link_to(const struct awaiting *one)
{
	struct awaiting **link = &awaiting;
	while (*link != one)
		link = &(*link)->next;
	return link;
}

static void awaiting_free(struct awaiting *one)
{
	*link_to(one) = one->next;
	n_awaiting--;
	timer_stop(&one->patience);
	buffer_free(&one->request);
	free(one);
}

static void awaiting_dropped(struct call *call)
{
	awaiting_free(call->context);
}

static void begin_anew(struct awaiting *one)
{
	struct call *call = one->call;
	call->context = NULL;
	call->dropped = NULL;
	one->goes_on = false;
	beginning = one;
	call->method->begin(call, bytes_of(&one->request));
	beginning = NULL;
	if (!one->goes_on)
		awaiting_free(one);
}

static void patience_over(struct timer *timer)
{
	struct awaiting *one = CONTAINER_OF(timer, struct awaiting, patience);
	one->over = true;
	begin_anew(one);
}

/* From the first again after each: whatever one begins with may end others. */
void await_tell(void)
{
	static unsigned round;
	round++;
	for (struct awaiting *one = awaiting; one;) {
		if (one->round == round) {
			one = one->next;
			continue;
		}
		one->round = round;
		begin_anew(one);
		one = awaiting;
	}
}

static struct awaiting *awaiting_new(struct bytes request)
{
	struct awaiting *one = n_awaiting < MAX_AWAITING ? calloc(1, sizeof *one) : NULL;
	if (!one)
		return NULL;
	buffer_append(&one->request, request.at, request.len);
	if (one->request.failed) {
		buffer_free(&one->request);
		free(one);
		return NULL;
	}
	timer_start(&one->patience, PATIENCE, patience_over);
	*link_to(NULL) = one;
	n_awaiting++;
	return one;
}

bool await_stream(struct call *call, struct bytes request)
{
	struct awaiting *one = beginning ? beginning : awaiting_new(request);
	if (!one || one->over)
		return false;
	one->call = call;
	one->goes_on = true;
	call->context = one;
	call->dropped = awaiting_dropped;
	return true;
}

bool await_process(struct call *call, struct bytes request)
{
	unsigned others = n_awaiting - (beginning ? 1 : 0);
	return others > 0 && await_stream(call, request);
}
