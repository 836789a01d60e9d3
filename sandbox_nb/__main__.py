"""``python -m sandbox_nb`` is ``sandbox-nb``."""

import sys

from sandbox_nb.cli import main

sys.exit(main())
