r"""Guest vsock ports as UNIX sockets: a vhost-user-vsock device process, and the host's side of it.

Standard library only, nothing of the rest of sandbox_nb: it serves any QEMU whose memory is shared.

    python -m sandbox_nb.vsock --socket /tmp/vhost --uds /tmp/v &
    qemu-system-x86_64 … -m 256M -machine memory-backend=ram \
        -object memory-backend-memfd,id=ram,size=256M,share=on \
        -chardev socket,id=vsock,path=/tmp/vhost -device vhost-user-vsock-pci,chardev=vsock

`bridge` says how a host then reaches a guest port, and is reached; `connect` does both from Python, `control` says
what a running device can be asked. By layers, each knowing only those before it:

    packet credit memory vhost_user      formats, and
    connection virtqueue framing         their rules: bytes in, decisions out
    loop stream handshake table bridge   connections and their sockets
    vring frontend device                the device, as QEMU sees it
    trace control address program        watching, steering and starting it
    controller                           the host's side of control
    connect transport                    the host's side
"""
