"""``python -m brmpi`` is the ``brmpi`` command."""

import sys

from brmpi.cli import main

if __name__ == "__main__":
    sys.exit(main())
