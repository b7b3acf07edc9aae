# Thin: everything real is in meson.build and scripts/.  Each target first sees to its own Debian
# packages (scripts/deps).

MESON = /usr/bin/meson
BUILD = build
SKEP = $(BUILD)/skep

.PHONY: build run check check-long bench fuzz clean

build:
	@scripts/deps build
	@test -f $(BUILD)/build.ninja || $(MESON) setup $(BUILD) >/dev/null
	@ninja -C $(BUILD) --quiet

run: build
	@scripts/deps run
	@scripts/run

check:
	@scripts/deps check
	@scripts/check $(ONLY)

check-long:
	@scripts/deps check
	@scripts/check --long $(ONLY)

bench: build
	@scripts/deps bench
	@bench/run $(ONLY)

fuzz: build
	@scripts/deps check
	@scripts/fuzz $(SECONDS) $(SEED)

clean:
	@rm -rf $(BUILD) build-*
