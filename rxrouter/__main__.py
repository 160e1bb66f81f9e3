"""`python -m rxrouter` is the `rxrouter` command."""

import sys

from rxrouter._cli import main

sys.exit(main())
