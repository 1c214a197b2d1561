"""`python -m dtms_client.exit_manager`."""

import sys

from dtms_client.exit_manager.command import main

sys.exit(main())
