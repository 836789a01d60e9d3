"""The protocol lens: what crosses between the host and a machine, as it crossed.

    crossings            one thing that crossed, and many as a table that can be filtered and saved
    calls packets orders frames of ttrpc, packets of vsock, messages of QMP, as crossings
    recorder             the taps of one machine, and what they have seen

Nothing is looked at unless a lens is open: each tap is a None that is tested.
"""
