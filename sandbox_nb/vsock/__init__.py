"""Guest vsock ports as UNIX sockets: a vhost-user-vsock device process, and the host's side of it.

Standard library only, nothing of the rest of sandbox_nb. The device process (`python -m sandbox_nb.vsock`)
serves any QEMU; `connect` dials guest ports and listens for the guest through the UNIX sockets the device
keeps.
"""
