"""The unit before the supervisor: seed import, then identity, since the certificate carries the configured name."""

import sys

from firstboot import identity, seed

if __name__ == "__main__":
    # A seed that cannot be stored must not keep the box from having an identity, by which a person reaches it.
    seed_result = seed.main()
    sys.exit(identity.main() or seed_result)
