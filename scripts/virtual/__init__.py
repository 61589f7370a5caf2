"""The firmware as a virtual machine on the developer's own computer: what `make run` and the vm ring of tests start."""
