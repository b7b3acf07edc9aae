# Thin: everything real is in meson.build and scripts/.  Each target first sees to its own Debian
# packages (scripts/deps).

MESON = /usr/bin/meson
NINJA = /usr/bin/ninja
BUILD = build

.PHONY: build run check check-long bench fuzz clean

build:
	@scripts/deps build
	@test -f $(BUILD)/build.ninja || { mkdir -p $(BUILD); $(MESON) setup $(BUILD) >$(BUILD)/setup.log || \
		{ tail -n 20 $(BUILD)/setup.log; exit 1; }; }
	@test -x $(BUILD)/skep || echo "Building skep ..."
	@out=$$($(NINJA) -C $(BUILD) --quiet 2>&1) || { echo "$$out"; exit 1; }

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
