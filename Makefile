# The whole interface for a person. Every target first installs what it needs and builds what is not up to date.

PROFILE ?= qemu
ARGS ?=
ONLY ?=

PYTHON := build/venv/bin/python
# Containers, namespaces and the image builder need root.
AS_ROOT := $(shell [ "$$(id -u)" = 0 ] || echo "sudo --preserve-env=CI")

.PHONY: help run test test-nested image lab bench chaos flash

help:
	@echo 'make run [ARGS=--fresh|--until-ready]   build the firmware, boot it under QEMU, attach to its local console'
	@echo 'make test                               build, then run every ring of tests that needs no extra hardware'
	@echo 'make test-nested                        the slow rest of it: virtual machines inside the emulated firmware'
	@echo 'make lab [ARGS=TOPOLOGY.toml]           the firmware in containers with the working copy laid over it; Ctrl-C ends it'
	@echo 'make image [PROFILE=qemu]               the image for a profile of hwprofiles/, compressed, with checksums'
	@echo 'make bench [ONLY=name] [ARGS=--quick]   measure, print a table, write build/bench/NAME.json'
	@echo 'make chaos [ARGS="--seed SEED --duration SECONDS"]   ten minutes of faults at the queue, then the checker'
	@echo 'make flash [PROFILE=name] DEVICE=/dev/… write an image to a device (not yet)'

# What `make run` prints on standard output is the machine's own: `--until-ready` is one line of JSON.
run:
	@scripts/bootstrap run >&2
	@scripts/build disk $(PROFILE) >&2
	@scripts/run --profile $(PROFILE) $(ARGS)

test:
	@scripts/bootstrap test
	@scripts/build disk qemu
	@$(AS_ROOT) $(PYTHON) -m pytest tests --ignore=tests/nested $(ARGS)

test-nested:
	@scripts/bootstrap test
	@scripts/build disk qemu
	@$(AS_ROOT) $(PYTHON) -m pytest tests/nested $(ARGS)

image:
	@scripts/bootstrap image
	@scripts/build artifacts $(PROFILE)

lab:
	@scripts/bootstrap lab
	@scripts/build tree qemu
	@$(AS_ROOT) scripts/lab up --foreground $(ARGS)

bench:
	@scripts/bootstrap bench
	@scripts/build disk qemu
	@$(AS_ROOT) $(PYTHON) -m tests.bench $(ARGS) $(ONLY)

chaos:
	@scripts/bootstrap chaos
	@$(AS_ROOT) $(PYTHON) -m tests.chaos $(ARGS)

flash:
	@scripts/bootstrap image
	@scripts/flash $(PROFILE) $(DEVICE)
