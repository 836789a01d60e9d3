#include "transport.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#define BACKLOG 64

union address {
	struct sockaddr any;
	struct sockaddr_vm vsock;
	struct sockaddr_un local;
};

static const char *folder;
static uint32_t expected_cid;

void transport_init(const char *unix_folder, uint32_t cid)
{
	folder = unix_folder;
	expected_cid = cid;
}

static socklen_t make_address(union address *address, uint32_t cid, uint32_t port)
{
	*address = (union address){0};
	if (!folder) {
		address->vsock.svm_family = AF_VSOCK;
		address->vsock.svm_cid = cid;
		address->vsock.svm_port = port;
		return sizeof address->vsock;
	}
	address->local.sun_family = AF_UNIX;
	snprintf(address->local.sun_path, sizeof address->local.sun_path, "%s/%u", folder, port);
	return sizeof address->local;
}

static int make_socket(void)
{
	return socket(folder ? AF_UNIX : AF_VSOCK, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

static int close_keeping_errno(int fd)
{
	int saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

/* The context id that the device has brought; the expected one as long as there is none, or /dev is not mounted. */
static uint32_t own_cid(void)
{
	uint32_t cid = VMADDR_CID_ANY;
	int fd = open("/dev/vsock", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return expected_cid;
	bool known = ioctl(fd, IOCTL_VM_SOCKETS_GET_LOCAL_CID, &cid) == 0 && cid != VMADDR_CID_ANY;
	close(fd);
	return known ? cid : expected_cid;
}

static uint32_t port_to_dial(uint32_t port)
{
	uint32_t cid = folder ? expected_cid : own_cid();
	return cid == expected_cid ? port : cid;
}

int transport_dial(uint32_t port)
{
	union address address;
	socklen_t len = make_address(&address, VMADDR_CID_HOST, port_to_dial(port));
	int fd = make_socket();
	if (fd < 0)
		return -1;
	if (connect(fd, &address.any, len) == 0 || errno == EINPROGRESS)
		return fd;
	return close_keeping_errno(fd);
}

int transport_error(int fd)
{
	int error = 0;
	socklen_t len = sizeof error;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
		return errno;
	return error;
}

/* Any CID, since the device that brings ours may be plugged later. */
int transport_listen(uint32_t port)
{
	union address address;
	socklen_t len = make_address(&address, VMADDR_CID_ANY, port);
	int fd = make_socket();
	if (fd < 0)
		return -1;
	if (folder)
		unlink(address.local.sun_path);
	if (bind(fd, &address.any, len) == 0 && listen(fd, BACKLOG) == 0)
		return fd;
	return close_keeping_errno(fd);
}

/* Over vsock's loopback a process of the guest could come too; streams are the host's alone. */
int transport_accept(int listener)
{
	union address peer = {0};
	socklen_t len = sizeof peer;
	int fd = accept4(listener, &peer.any, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0 || folder || peer.vsock.svm_cid == VMADDR_CID_HOST)
		return fd;
	close(fd);
	return -1;
}

/* Both kinds of socket refuse even an empty message once the peer has closed its receiving end. */
bool transport_peer_left(int fd)
{
	return send(fd, "", 0, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EAGAIN;
}
