"""One QEMU: which accelerator, what command line, the process, and the talk with it over QMP."""
