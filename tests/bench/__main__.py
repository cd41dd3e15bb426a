"""`python -m tests.bench`; see `scripts/bench`."""

import sys

from tests.bench import database, run

raise SystemExit(database.main() if "--database" in sys.argv[1:] else run.main())
