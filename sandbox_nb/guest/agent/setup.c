#include "setup.h"

#include "log.h"
#include "root.h"
#include "strings.h"
#include "system.h"
#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAX_ENTROPY 512
#define MAX_HOSTNAME 64
#define MACHINE_ID_SIZE 32
#define INIT_ARGS_FILE "/run/sandbox_nb/init_args"

enum state { NEW, REHEARSING, CONFIGURING, READY, LEAVING };

/* A ConfigureRequest, kept until its root disk is there. */
struct setup {
	uint8_t entropy[MAX_ENTROPY];
	size_t entropy_len;
	int64_t clock_ns; /* the host's, at came_ns of ours */
	uint64_t came_ns;
	char *hostname;
	char *machine_id;
	struct strings init_args;
	struct root_disk root;
	bool has_root;
	struct call *call; /* NULL once the host has given up waiting */
	const char *problem;
};

static enum state state = NEW;
static bool owns_machine;
static struct setup setup;

void setup_init(bool machine)
{
	owns_machine = machine;
}

void setup_leave(void)
{
	state = LEAVING;
}

bool setup_done(struct call *call)
{
	if (state == READY || state == REHEARSING)
		return true;
	call_fail(call, STATUS_FAILED_PRECONDITION,
		  state == LEAVING ? "the machine is being powered off" : "the machine is not set up: call Setup/Configure first");
	return false;
}

static void setup_clear(void)
{
	free(setup.hostname);
	free(setup.machine_id);
	strings_free(&setup.init_args);
	setup = (struct setup){0};
}

static void take_entropy(struct bytes entropy)
{
	if (entropy.len > MAX_ENTROPY) {
		setup.problem = "entropy has at most 512 bytes";
		return;
	}
	memcpy(setup.entropy, entropy.at, entropy.len);
	setup.entropy_len = entropy.len;
}

static void take_hostname(struct bytes name)
{
	if (name.len < 1 || name.len > MAX_HOSTNAME || !bytes_printable(name))
		setup.problem = "a hostname has 1 to 64 printable ASCII characters";
	free(setup.hostname);
	setup.hostname = bytes_string(name);
}

static void take_machine_id(struct bytes id)
{
	free(setup.machine_id);
	setup.machine_id = bytes_string(id);
	if (!setup.machine_id || id.len != MACHINE_ID_SIZE || strspn(setup.machine_id, "0123456789abcdef") != id.len)
		setup.problem = "a machine id has 32 lower-case hex digits";
}

static void take_field(const struct pb_field *field)
{
	switch (field->tag) {
	case PB_BYTES(1):
		take_entropy(field->bytes);
		break;
	case PB_VARINT(2):
		setup.clock_ns = (int64_t)field->varint;
		if (setup.clock_ns < 0)
			setup.problem = "clock_realtime_ns is before 1970";
		break;
	case PB_BYTES(3):
		take_hostname(field->bytes);
		break;
	case PB_BYTES(4):
		take_machine_id(field->bytes);
		break;
	case PB_BYTES(5):
		if (!strings_add(&setup.init_args, field->bytes))
			setup.problem = "an element of init_args holds a NUL byte, or there is no memory";
		break;
	case PB_BYTES(6):
		setup.has_root = true;
		if (!root_disk_parse(field->bytes, &setup.root))
			setup.problem = "root needs a serial of 1 to 20 characters and the type erofs, squashfs or ext4";
		break;
	}
}

/* Credited, and used at once: what a clone's kernel still holds was the same in all of them. */
static void add_entropy(void)
{
	struct { /* rand_pool_info with room */
		int entropy_count; /* bits */
		int buf_size;
		uint8_t buf[MAX_ENTROPY];
	} pool = {.entropy_count = (int)setup.entropy_len * 8, .buf_size = (int)setup.entropy_len};
	int fd = setup.entropy_len ? open("/dev/urandom", O_WRONLY | O_CLOEXEC) : -1;
	if (fd < 0)
		return;
	memcpy(pool.buf, setup.entropy, setup.entropy_len);
	if (ioctl(fd, RNDADDENTROPY, &pool) < 0 || ioctl(fd, RNDRESEEDCRNG) < 0)
		say("the entropy of the host was not taken: %s", strerror(errno));
	close(fd);
}

static void set_clock(void)
{
	int64_t now_ns = setup.clock_ns + (int64_t)(monotonic_ns() - setup.came_ns);
	struct timespec now = {
		.tv_sec = (time_t)(now_ns / (int64_t)NS_PER_S),
		.tv_nsec = (long)(now_ns % (int64_t)NS_PER_S),
	};
	if (setup.clock_ns && clock_settime(CLOCK_REALTIME, &now) < 0)
		say("the clock cannot be set: %s", strerror(errno));
}

static void set_names(void)
{
	char line[MACHINE_ID_SIZE + 2];
	if (setup.hostname && sethostname(setup.hostname, strlen(setup.hostname)) < 0)
		say("the hostname cannot be set: %s", strerror(errno));
	if (!setup.machine_id)
		return;
	memcpy(line, setup.machine_id, MACHINE_ID_SIZE);
	memcpy(line + MACHINE_ID_SIZE, "\n", 2);
	if (!text_write("/etc/machine-id", line))
		say("/etc/machine-id cannot be written: %s", strerror(errno));
}

static void store_init_args(void)
{
	mkdir("/run/sandbox_nb", 0755);
	int fd = open(INIT_ARGS_FILE, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	for (size_t i = 0; i < setup.init_args.len && fd >= 0; i++) {
		size_t size = strlen(setup.init_args.at[i]) + 1;
		if (write(fd, setup.init_args.at[i], size) != (ssize_t)size)
			break;
	}
	if (fd >= 0)
		close(fd);
}

/* Those that are not known are somebody else's to read, in INIT_ARGS_FILE. */
static void obey_init_args(void)
{
	for (size_t i = 0; i < setup.init_args.len; i++) {
		if (strcmp(setup.init_args.at[i], "-debug") == 0)
			log_debug = true;
		if (strcmp(setup.init_args.at[i], "-dump-info") == 0)
			system_dump();
	}
}

static void finish(enum state reached)
{
	if (owns_machine) {
		set_clock();
		add_entropy();
		set_names();
		store_init_args();
	}
	obey_init_args();
	state = reached;
	if (setup.call)
		call_reply(setup.call, NULL);
	setup_clear();
}

static void root_settled(enum status status, const char *problem)
{
	if (status == STATUS_OK) {
		finish(READY);
		return;
	}
	state = NEW;
	if (setup.call)
		call_fail(setup.call, status, "root: %s", problem);
	setup_clear();
}

static void configure_dropped(struct call *call)
{
	(void)call;
	setup.call = NULL;
}

/* False when the call was failed. */
static bool take_request(struct call *call, struct bytes request)
{
	struct pb_reader in = pb_read(request);
	if (state != NEW && state != REHEARSING) {
		call_fail(call, STATUS_FAILED_PRECONDITION, "the machine is set up already, once for each start");
		return false;
	}
	for (struct pb_field field; pb_next(&in, &field);)
		take_field(&field);
	if (!call_decoded(call, &in)) {
		setup_clear();
		return false;
	}
	if (setup.problem) {
		call_fail(call, STATUS_INVALID_ARGUMENT, "%s", setup.problem);
		setup_clear();
		return false;
	}
	setup.call = call;
	setup.came_ns = monotonic_ns();
	return true;
}

void setup_configure(struct call *call, struct bytes request)
{
	if (!take_request(call, request))
		return;
	call->dropped = configure_dropped;
	state = CONFIGURING;
	if (setup.has_root && owns_machine)
		root_switch(&setup.root, root_settled);
	else
		finish(READY);
}

void setup_rehearse(struct call *call, struct bytes request)
{
	if (take_request(call, request))
		finish(REHEARSING);
}
