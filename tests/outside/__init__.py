"""Programs that tests run on outside hosts: the systems that the appliance integrates."""
