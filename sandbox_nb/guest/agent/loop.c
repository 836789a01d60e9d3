#include "loop.h"

#include "log.h"

#include <errno.h>
#include <time.h>
#include <unistd.h>

static int epoll_fd = -1;
static struct timer *timers; /* soonest first */

/* The events of the current turn not yet handled: a watch that stops must vanish from here too. */
static struct epoll_event batch[32];
static int batch_at, batch_len;

void loop_init(void)
{
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_fd < 0)
		die("epoll_create1");
}

uint64_t monotonic_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* Tells epoll of a change; false with errno. */
static bool set_interest(struct watch *watch, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = watch};
	int op = events == 0 ? EPOLL_CTL_DEL : watch->events == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
	if (events == watch->events)
		return true;
	if (epoll_ctl(epoll_fd, op, watch->fd, &event) < 0)
		return false;
	watch->events = events;
	for (int i = batch_at; op == EPOLL_CTL_DEL && i < batch_len; i++)
		if (batch[i].data.ptr == watch)
			batch[i].data.ptr = NULL;
	return true;
}

bool watch_start(struct watch *watch, int fd, uint32_t events, void (*ready)(struct watch *, uint32_t))
{
	*watch = (struct watch){.fd = fd, .ready = ready};
	if (set_interest(watch, events))
		return true;
	watch->ready = NULL;
	return false;
}

void watch_set(struct watch *watch, uint32_t events)
{
	if (watch->ready && !set_interest(watch, events))
		die("epoll_ctl");
}

void watch_stop(struct watch *watch)
{
	watch_set(watch, 0);
	watch->ready = NULL;
}

void watch_close(struct watch *watch)
{
	if (!watch->ready)
		return;
	watch_stop(watch);
	close(watch->fd);
}

void timer_start(struct timer *timer, uint64_t after_ns, void (*fire)(struct timer *))
{
	timer_stop(timer);
	timer->at = monotonic_ns() + after_ns;
	timer->fire = fire;
	struct timer **link = &timers;
	while (*link && (*link)->at <= timer->at)
		link = &(*link)->next;
	timer->next = *link;
	*link = timer;
}

void timer_stop(struct timer *timer)
{
	if (!timer->fire)
		return;
	for (struct timer **link = &timers; *link; link = &(*link)->next)
		if (*link == timer) {
			*link = timer->next;
			break;
		}
	timer->fire = NULL;
}

static void fire_due_timers(void)
{
	uint64_t now = timers ? monotonic_ns() : 0;
	while (timers && timers->at <= now) {
		struct timer *timer = timers;
		void (*fire)(struct timer *) = timer->fire;
		timer_stop(timer);
		fire(timer);
	}
}

/* In milliseconds, rounded up so that a timer is due when epoll_wait returns; -1 waits for ever. */
static int next_timeout(void)
{
	if (!timers)
		return -1;
	uint64_t now = monotonic_ns();
	if (timers->at <= now)
		return 0;
	uint64_t ms = (timers->at - now + NS_PER_MS - 1) / NS_PER_MS;
	return (int)MIN(ms, 60 * 1000);
}

void loop_run(void)
{
	for (;;) {
		batch_len = epoll_wait(epoll_fd, batch, ARRAY_SIZE(batch), next_timeout());
		if (batch_len < 0 && errno != EINTR)
			die("epoll_wait");
		for (batch_at = 0; batch_at < batch_len;) {
			struct epoll_event *event = &batch[batch_at++];
			struct watch *watch = event->data.ptr;
			if (watch)
				watch->ready(watch, event->events);
		}
		fire_due_timers();
	}
}
