"""`python -m tests.bench`; see `scripts/bench`."""

from tests.bench.run import main

raise SystemExit(main())
