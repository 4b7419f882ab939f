# make serve | chat | test | test-long. Everything else is CMake: see README.md.
MODEL ?= models/nano
PORT ?= 8000
HOST ?= 127.0.0.1
ARGS ?=
HADAL := build/release/bin/hadal

.PHONY: serve chat test test-long build deps

serve: deps build
	$(HADAL) serve --model $(MODEL) --host $(HOST) --port $(PORT) $(ARGS)

chat: deps build
	$(HADAL) chat --model $(MODEL) $(ARGS)

test: deps
	scripts/install_deps.sh test
	$(MAKE) --no-print-directory build
	tools/check_layers
	ctest --test-dir build/release --output-on-failure

test-long:
	scripts/install_deps.sh build test fuzz
	scripts/test_long.sh

build:
	cmake --preset release
	cmake --build --preset release

deps:
	scripts/install_deps.sh build
