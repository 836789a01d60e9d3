/* The agent's one loop: file descriptors through epoll, timers, nothing else. Everything runs in its callbacks. */
#ifndef LOOP_H
#define LOOP_H

#include "bytes.h"

#include <sys/epoll.h>

#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)

/* A file descriptor somebody waits for. Owned by its user, who may free it in any callback once it is stopped. */
struct watch {
	int fd;
	uint32_t events;
	void (*ready)(struct watch *, uint32_t events);
};

/* A one-shot timer. Owned by its user; all zero is a timer that does not run. */
struct timer {
	uint64_t at;
	void (*fire)(struct timer *);
	struct timer *next;
};

void loop_init(void);
_Noreturn void loop_run(void);

/*
 * False with errno set. With any event EPOLLERR and EPOLLHUP are told too, asked for or not; with 0 nothing is, which is
 * the only way not to be told again and again of an end that cannot be acted on yet.
 */
bool watch_start(struct watch *, int fd, uint32_t events, void (*ready)(struct watch *, uint32_t events));
void watch_set(struct watch *, uint32_t events);

/* Ends the watch and leaves its fd open. Does nothing when it does not run. */
void watch_stop(struct watch *);
void watch_close(struct watch *);

void timer_start(struct timer *, uint64_t after_ns, void (*fire)(struct timer *));
void timer_stop(struct timer *);

uint64_t monotonic_ns(void);

#endif
