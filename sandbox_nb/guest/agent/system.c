#include "system.h"

#include "log.h"
#include "text.h"

#include <sys/sysinfo.h>
#include <sys/utsname.h>

void system_info(struct call *call, struct bytes request)
{
	struct buffer response = {0};
	struct utsname name;
	(void)request;
	uname(&name);
	pb_put_string(&response, 1, AGENT_VERSION);
	pb_put_string(&response, 2, name.release);
	call_reply(call, &response);
	buffer_free(&response);
}

void system_dump(void)
{
	char line[400];
	struct utsname name;
	struct sysinfo info;
	if (uname(&name) == 0)
		say("agent %s, %s %s %s, host %s", AGENT_VERSION, name.sysname, name.release, name.machine, name.nodename);
	if (sysinfo(&info) == 0)
		say("up %ld s, %lu MiB of %lu MiB memory free", info.uptime, info.freeram / 1024 * info.mem_unit / 1024,
		    info.totalram / 1024 * info.mem_unit / 1024);
	text_read_line("/proc/cmdline", line, sizeof line);
	say("command line: %s", line);
}
