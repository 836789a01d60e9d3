"""Files and folders of the guest: whole files, what is known of them, and trees copied either way.

=============  =========================================================================
``service``    the verbs: read, write, stat, listdir, mkdir, remove, copy_to, copy_from
``info``       what is known of a file, and what was copied
``records``    the stream of a tree as records (``guest/proto/files.proto`` says what they are)
``sender``     a tree of the host as records
``receiver``   records as a tree of the host
``failure``    what the host's file system answers, as an error of ours
``transfer``   a stream carried in a thread, beside the agent's call it belongs to
=============  =========================================================================
"""
