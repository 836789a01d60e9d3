/* What the host can call: sandbox_nb/guest/proto/ as a table. */
#include "disks.h"
#include "events.h"
#include "files.h"
#include "forward.h"
#include "mount.h"
#include "network.h"
#include "power.h"
#include "process.h"
#include "rpc.h"
#include "setup.h"
#include "socketforward.h"
#include "start.h"
#include "stats.h"
#include "system.h"

#define DISKS "sandbox_nb.disks.v1.Disks"
#define EVENTS "nerdbox.services.vmevents.v1.Events"
#define FILES "sandbox_nb.files.v1.Files"
#define FORWARD "sandbox_nb.forward.v1.Forward"
#define MOUNT "containerd.vminitd.services.mount.v1.Mount"
#define NETWORK "sandbox_nb.network.v1.Network"
#define POWER "sandbox_nb.power.v1.Power"
#define PROCESS "sandbox_nb.process.v1.Process"
#define SETUP "sandbox_nb.setup.v1.Setup"
#define SOCKET_FORWARD "nerdbox.services.socketforward.v1.SocketForward"
#define STATS "sandbox_nb.stats.v1.Stats"
#define SYSTEM "containerd.vminitd.services.system.v1.System"

static const struct method methods[] = {
	{PROCESS, "Start", UNARY, process_start},
	{PROCESS, "Wait", UNARY, process_wait},
	{PROCESS, "Kill", UNARY, process_kill},
	{PROCESS, "ResizePty", UNARY, process_resize_pty},
	{PROCESS, "CloseIO", UNARY, process_close_io},
	{PROCESS, "Pids", UNARY, process_pids},
	{FILES, "Read", UNARY, files_read},
	{FILES, "Write", UNARY, files_write},
	{FILES, "Stat", UNARY, files_stat},
	{FILES, "List", UNARY, files_list},
	{FILES, "Mkdir", UNARY, files_mkdir},
	{FILES, "Remove", UNARY, files_remove},
	{FILES, "Pack", UNARY, files_pack},
	{FILES, "Unpack", UNARY, files_unpack},
	{FORWARD, "Dial", UNARY, forward_dial},
	{FORWARD, "Unbind", UNARY, socketforward_unbind},
	{SOCKET_FORWARD, "Bind", UNARY, socketforward_bind},
	{SOCKET_FORWARD, "Accept", BIDI, socketforward_accept},
	{DISKS, "Find", UNARY, disks_find},
	{MOUNT, "MountAll", UNARY, mount_all},
	{MOUNT, "Unmount", UNARY, mount_unmount},
	{MOUNT, "UnmountAll", UNARY, mount_unmount_all},
	{NETWORK, "Configure", UNARY, network_configure},
	{NETWORK, "List", UNARY, network_list},
	{STATS, "Get", UNARY, stats_get},
	{SYSTEM, "Info", UNARY, system_info},
	{SETUP, "Configure", UNARY, setup_configure},
	{SETUP, "Rehearse", UNARY, setup_rehearse},
	{POWER, "Off", UNARY, power_off},
	{EVENTS, "Stream", SERVER_STREAM, events_stream},
};

const struct method *method_find(struct bytes service, struct bytes name, bool *known)
{
	*known = false;
	for (size_t i = 0; i < ARRAY_SIZE(methods); i++) {
		if (!bytes_equal(service, methods[i].service))
			continue;
		*known = true;
		if (bytes_equal(name, methods[i].name))
			return &methods[i];
	}
	return NULL;
}
