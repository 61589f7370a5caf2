"""Virtual machines inside an emulated box: minutes for each boot, so only `make test-nested` runs them."""
