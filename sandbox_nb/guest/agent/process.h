/* Processes the host has started, until their end was told: the table, and every verb of the service but Start. */
#ifndef PROCESS_H
#define PROCESS_H

#include "late.h"
#include "relay.h"
#include "rpc.h"

#include <sys/types.h>

#define PROCESS_ID_MAX 64

struct process {
	struct process *next;
	char id[PROCESS_ID_MAX + 1];
	pid_t pid;
	bool running;
	int wait_status;
	bool out_of_memory; /* it, or a process it started */
	unsigned cgroup;
	struct relay *input; /* of its standard input or terminal, while that is open */
	struct lates lates;  /* its outputs that nobody has asked for yet */
	struct call *waiters;
	struct call *listeners; /* wait for it to speak, too */
};

struct process *process_find(struct bytes id);

/* False when as many run as may. */
bool process_room(void);

/* A process with no pid yet; NULL when memory is short. It is in the table once it was added. */
struct process *process_new(struct bytes id);
void process_add(struct process *);
void process_free(struct process *);

void process_wait(struct call *, struct bytes request);
void process_kill(struct call *, struct bytes request);
void process_resize_pty(struct call *, struct bytes request);
void process_close_io(struct call *, struct bytes request);
void process_pids(struct call *, struct bytes request);

/* A child was reaped with this status of wait(2). Does nothing when it is none of these. */
void process_reaped(pid_t pid, int wait_status);

/* Signals all that runs with all that each has started. */
void process_signal_all(int signal);

#endif
