"""``python -m s2vgan.cli``, the same as ``s2vgan``."""

import sys

from s2vgan.cli import main

sys.exit(main())
