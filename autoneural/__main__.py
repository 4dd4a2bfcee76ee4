"""`python -m autoneural` is the same program as `autoneural`."""

import sys

from autoneural.cli import main

sys.exit(main())
