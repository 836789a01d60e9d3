/*
 * The guest agent: process 1 of the machine, and a ttrpc server to the host.
 *
 * On a cold start every step before the host is dialled makes the start longer, so only the modules that dialling needs
 * come first; the host's first call is answered once the rest is done. With -preload the rest
 * comes first: a template is being made, whose agent then waits for the device that its copies will get, or other processors
 * are to come up, before which all modules must be loaded.
 */
#include "boot.h"
#include "cgroup.h"
#include "lease.h"
#include "log.h"
#include "loop.h"
#include "modules.h"
#include "power.h"
#include "reap.h"
#include "root.h"
#include "rpc.h"
#include "setup.h"
#include "stream.h"
#include "system.h"
#include "text.h"
#include "transport.h"
#include "uevent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MODULES_BOOT "/etc/sandbox_nb/modules.boot"
#define MODULES_LATE "/etc/sandbox_nb/modules.late"

struct options {
	uint32_t rpc_port;
	uint32_t stream_port;
	uint32_t cid;
	bool preload;
	bool emulated;
	bool dump_info;
	const char *folder; /* -unix=DIR: UNIX sockets there, and no machine of one's own */
	const char *cgroup; /* -cgroup=DIR: where cgroups are made then */
};

/* The value of "-name=value"; NULL when `arg` is another flag. */
static const char *flag_value(const char *arg, const char *name)
{
	size_t len = strlen(name);
	return strncmp(arg, name, len) == 0 && arg[len] == '=' ? arg + len + 1 : NULL;
}

/* A port or a context id. */
static void take_number(const char *value, uint32_t *into)
{
	uint64_t number;
	if (value && text_number(value, UINT32_MAX - 1, &number))
		*into = (uint32_t)number;
}

/* Flags not known are left alone: the kernel hands its own unknown parameters to process 1 too. */
static struct options parse_options(char **args)
{
	struct options options = {
		.rpc_port = 1025, .stream_port = 1026, .cid = 3, .cgroup = "/sys/fs/cgroup/sandbox"};
	for (; *args; args++) {
		const char *value;
		take_number(flag_value(*args, "-vsock-rpc-port"), &options.rpc_port);
		take_number(flag_value(*args, "-vsock-stream-port"), &options.stream_port);
		take_number(flag_value(*args, "-vsock-cid"), &options.cid);
		if ((value = flag_value(*args, "-unix")))
			options.folder = value;
		if ((value = flag_value(*args, "-cgroup")))
			options.cgroup = value;
		options.preload |= strcmp(*args, "-preload") == 0;
		options.emulated |= strcmp(*args, "-emulated") == 0;
		options.dump_info |= strcmp(*args, "-dump-info") == 0;
		log_debug |= strcmp(*args, "-debug") == 0;
	}
	return options;
}

static void device_came(void)
{
	rpc_nudge();
	root_nudge();
}

static void serve(const struct options *options)
{
	if (!streams_listen(options->stream_port))
		say("no streams: port %u: %s", options->stream_port, strerror(errno));
	rpc_start(options->rpc_port);
}

static void prepare_machine(const struct options *options)
{
	boot_mounts();
	boot_limits();
	boot_loopback();
	if (options->emulated)
		boot_emulated();
	uevent_init(device_came, !options->preload);
}

static void start_machine(const struct options *options)
{
	modules_load(MODULES_BOOT);
	if (options->preload) {
		prepare_machine(options);
		cgroup_init(options->cgroup);
		modules_load(MODULES_LATE);
		serve(options);
		say("waiting for the host");
	} else {
		serve(options);
		prepare_machine(options);
		cgroup_init(options->cgroup);
		uevent_replay();
	}
	if (options->emulated)
		boot_processors();
}

int main(int argc, char **argv)
{
	if (lease_called()) {
		lease_hand_over(argc > 1 ? argv[1] : "");
		return 0;
	}
	struct options options = parse_options(argv + (argc > 0));
	bool machine = !options.folder;
	loop_init();
	reap_init();
	transport_init(options.folder, options.cid);
	setup_init(machine);
	power_init(machine);
	if (machine) {
		start_machine(&options);
	} else {
		cgroup_init(options.cgroup);
		serve(&options);
	}
	if (options.dump_info)
		system_dump();
	loop_run();
}
