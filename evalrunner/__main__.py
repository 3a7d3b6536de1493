"""`python -m evalrunner`."""

import sys

from evalrunner.cli import main

sys.exit(main())
