"""`python3 -m appliance.supervisor`."""

import sys

from appliance.supervisor.service import main

sys.exit(main())
