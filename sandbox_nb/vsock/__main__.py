"""The device process: `python -m sandbox_nb.vsock`, or by path with `python -I -S`, which starts twice as fast."""

from __future__ import annotations

import sys

if not __package__:
    # Run by path there is no package for the relative imports to be relative to: make one of this folder, and
    # of nothing around it.
    __package__ = "vsock"
    package = type(sys)(__package__)
    package.__path__ = [__file__.rpartition("/")[0] or "."]
    sys.modules[__package__] = package

from .program import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
