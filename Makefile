# balora: one program, built into build/$(MODE)/.  `make help` lists the targets.
# SPDX-License-Identifier: Apache-2.0
MODE ?= release
B := build/$(MODE)
CC ?= gcc
PKGS := sqlite3 libcjson libcurl libmicrohttpd libseccomp openblas libpcre2-8 libutf8proc zlib
VERSION := $(shell cat VERSION 2>/dev/null || echo 0.1.0)

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wcast-qual \
        -Wwrite-strings -Wvla -Wformat=2 -Wundef -Wdouble-promotion -Wimplicit-fallthrough -Werror
ifneq ($(findstring clang,$(shell $(CC) --version 2>/dev/null)),) # it warns of the C library's own NAN, and of loops that it leaves as they are
WARN += -Wno-double-promotion -Wno-pass-failed
endif
# -fno-trapping-math lets comparisons be vectorised; unlike -ffast-math it changes no value.
BASE := -std=c11 -D_GNU_SOURCE -g -fno-math-errno -fno-trapping-math -ffp-contract=fast -fopenmp-simd -I. -DBAL_VERSION='"$(VERSION)"'
ISAS := base avx2 avx512
OPT_release := -O3
OPT_debug := -O0
OPT_asan := -O1 -fno-omit-frame-pointer -fsanitize=address,undefined,float-divide-by-zero,float-cast-overflow -fno-sanitize-recover=all
OPT_tsan := -O1 -fsanitize=thread
OPT_fuzz := -O1 -fno-omit-frame-pointer -fsanitize=address,undefined,fuzzer-no-link -Wno-error
OPT_f64 := -O2 -DBAL_F64=1
ifeq ($(OPT_$(MODE)),)
$(error MODE=$(MODE) is unknown: release debug asan tsan f64 fuzz)
endif
ifneq ($(shell uname -m),x86_64)
ISAS := base
endif
ifneq ($(filter f64 fuzz,$(MODE)),) # checks of formulas and of readers: one set is enough
ISAS := base
endif
ISA_base :=
ISA_FLAGS_fuzz := -fno-sanitize=all # unrolled products, which no target reaches, would take clang many minutes
ISA_avx2 := -mavx2 -mfma -mf16c
ISA_avx512 := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx2 -mfma -mf16c -mprefer-vector-width=512

HAVE_PKGS := $(shell pkg-config --exists $(PKGS) 2>/dev/null && echo yes)
PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
# libcurl is opened when the first request is made (lib/net/curl_open.h).
PKG_LIBS := $(filter-out -lcurl,$(shell pkg-config --libs $(PKGS) 2>/dev/null))
CFLAGS_ALL = $(BASE) $(WARN) $(OPT_$(MODE)) $(if $(filter 1,$(NATIVE)),-march=native) $(PKG_CFLAGS) $(CFLAGS)
LIBS := $(PKG_LIBS) -lpthread -lm
ISA_DEFS := $(foreach i,$(ISAS),-DBAL_HAVE_ISA_$(i)=1)

ROOMS := lib train tools evaluate analyze reports datasets serve
SRC := $(sort $(shell find $(ROOMS) -name '*.c' 2>/dev/null))
# A file named *_isa.c holds hot loops: it is compiled once for each instruction set (BAL_ISA is its name).
ISA_SRC := $(filter %_isa.c,$(SRC))
OBJ := $(patsubst %.c,$(B)/%.o,$(filter-out %_isa.c,$(SRC))) \
       $(foreach i,$(ISAS),$(patsubst %_isa.c,$(B)/%_isa.$(i).o,$(ISA_SRC)))
EMBED := $(sort $(wildcard datasets/embedded/*))
TESTS := $(sort $(wildcard tests/unit/test_*.c tests/torture/test_*.c))
GRADS := $(sort $(wildcard tests/grad/test_*.c))
GOLDENS := $(sort $(wildcard tests/golden/test_*.c))
FUZZ := $(sort $(wildcard tests/fuzz/fuzz_*.c))
bin = $(patsubst %.c,$(B)/%,$(1))

C_FILES = $(sort balora.c $(shell find $(ROOMS) tests -name '*.[ch]' 2>/dev/null))
CORPORA := tests/fuzz/corpora
FUZZ_SECONDS ?= 60
PREFIX ?= /usr/local

.PHONY: all demo test check grad golden cli replay lint layers format asan tsan f64 fuzz mutate bench embedded install-deps install help clean
.DEFAULT_GOAL := all

all: $(B)/balora ## build the program (build/$(MODE)/balora, and the link ./balora)
	@ln -sfn build/release/balora balora

help: ## this list
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-14s %s\n",$$1,$$2}' Makefile
	@echo '  MODE=release|debug|asan|tsan|f64 with any of them; V=1 shows the commands; NATIVE=1 adds -march=native'

ifneq ($(HAVE_PKGS),yes)
$(B)/.flags: | need-packages
.PHONY: need-packages
need-packages:
	@for p in $(PKGS); do pkg-config --exists $$p && echo "  found    $$p" || echo "  MISSING  $$p"; done
	@echo 'Some libraries are missing: run "make install-deps" (as root), or'; echo '  apt-get install -y $(shell cat tools/packages.txt | tr "\n" " ")'; exit 1
endif

Q := $(if $(V),,@)
FLAGS_NOW := $(CC) $(CFLAGS_ALL) $(ISA_DEFS) $(LIBS)
$(B)/.flags: FORCE
	@mkdir -p $(B); printf '%s\n' '$(subst ','\'',$(FLAGS_NOW))' | cmp -s - $@ || printf '%s\n' '$(subst ','\'',$(FLAGS_NOW))' > $@
.PHONY: FORCE

$(B)/%.o: %.c $(B)/.flags
	@mkdir -p $(@D); echo "  CC   $<"
	$(Q)$(CC) $(CFLAGS_ALL) $(ISA_DEFS) -MMD -MP -c $< -o $@
define isa_rule
$(B)/%_isa.$(1).o: %_isa.c $(B)/.flags
	@mkdir -p $$(@D); echo "  CC   $$< ($(1))"
	$(Q)$(CC) $$(CFLAGS_ALL) $$(ISA_DEFS) $$(ISA_$(1)) $$(ISA_FLAGS_$(MODE)) -DBAL_ISA=$(1) -MMD -MP -c $$< -o $$@
endef
$(foreach i,$(ISAS),$(eval $(call isa_rule,$(i))))

$(B)/lib/data/embedded.o: $(EMBED)
$(B)/evaluate/task_files.o: $(wildcard evaluate/tasks/*.json)
$(B)/evaluate/sandbox.o: $(wildcard evaluate/sandbox/*.py)

$(B)/libbal.a: $(OBJ)
	@rm -f $@; ar rcs $@ $(OBJ)
$(B)/balora: $(B)/balora.o $(B)/libbal.a
	@echo "  LINK $@"
	$(Q)$(CC) $(CFLAGS_ALL) -o $@ $(B)/balora.o $(B)/libbal.a $(LIBS)
$(B)/tests/fuzz/%: $(B)/tests/fuzz/%.o $(if $(filter fuzz,$(MODE)),,$(B)/tests/fuzz/standalone.o) $(B)/libbal.a
	@echo "  LINK $@"
	$(Q)$(CC) $(CFLAGS_ALL) $(if $(filter fuzz,$(MODE)),-fsanitize=fuzzer) -o $@ $(filter %.o,$^) $(B)/libbal.a $(LIBS)
$(B)/tests/%: $(B)/tests/%.o $(B)/tests/test.o $(B)/tests/program.o $(B)/libbal.a
	@echo "  LINK $@"
	$(Q)$(CC) $(CFLAGS_ALL) -o $@ $< $(B)/tests/test.o $(B)/tests/program.o $(B)/libbal.a $(LIBS)
-include $(shell find $(B) -name '*.d' 2>/dev/null)
.SECONDARY:

check: all $(call bin,$(TESTS)) ## unit and torture tests of this MODE
	@tests/run.sh $(B) unit $(call bin,$(TESTS))

grad: $(call bin,$(GRADS)) ## gradient checks (use MODE=f64)
	@tests/run.sh $(B) grad $(call bin,$(GRADS))

golden: all $(call bin,$(GOLDENS)) ## numbers of transformers + peft, when ../shared is there
	@tests/run.sh $(B) golden $(call bin,$(GOLDENS))

cli: all ## commands, messages and exit statuses (UPDATE=1 renews what is expected)
	@tests/cli/run.sh $(B)

replay: $(call bin,$(FUZZ)) ## the fuzz targets over their corpora
	@tests/fuzz/replay.sh $(B) $(CORPORA) $(call bin,$(FUZZ))

mutate: all $(call bin,$(TESTS)) ## wrong variants of formulas, each of which a unit test must notice
	@CC='$(CC)' FLAGS='$(filter-out -DBAL_VERSION%,$(CFLAGS_ALL)) -O1' LIBS='$(LIBS)' tests/mutations/run.sh $(B)

# The targets for people install what is missing, or say the one line to run; then they call make again.
demo: ## the whole pipeline, offline, on the embedded model: tables, plots, one HTML page
	@$(if $(HAVE_PKGS),,$(MAKE) --no-print-directory install-deps &&) $(MAKE) --no-print-directory all && ./balora demo

test: ## all tests of the release build; the last line is their count
	@$(if $(HAVE_PKGS),,$(MAKE) --no-print-directory install-deps &&) tests/all.sh check golden cli replay

asan: ## unit, torture and fuzz-replay tests under the address and undefined-behaviour sanitizers
	@BALORA_GEMM=openblas MODE=asan tests/all.sh check replay # oneDNN's thread memory crashes the leak finder

tsan: ## unit tests under the thread sanitizer, OpenBLAS on one thread
	@OPENBLAS_NUM_THREADS=1 BALORA_GEMM=openblas MODE=tsan tests/all.sh check

f64: ## unit tests and gradient checks in double
	@MODE=f64 tests/all.sh check grad

fuzz: ## searches for new bad inputs, FUZZ_SECONDS=60 a target (clang); without clang replays the corpora
	@if command -v clang >/dev/null; then tests/fuzz/search.sh $(FUZZ_SECONDS) $(CORPORA) $(FUZZ); \
	else echo '  clang is missing: replaying only'; $(MAKE) --no-print-directory replay MODE=asan; fi

lint: ## format, sizes, banned calls, clang-tidy (TIDY=all for every file)
	@CFLAGS_TIDY='$(filter-out -DBAL_VERSION%,$(BASE)) -DBAL_VERSION=__FILE__ $(PKG_CFLAGS) $(ISA_DEFS)' tests/lint/lint.sh $(C_FILES)

layers: ## the arrows between folders point one way
	@tests/lint/layers.sh $(C_FILES)

format: ## clang-format over all C files
	clang-format -i $(C_FILES)

bench: all ## speed as ratios (MODEL=PATH; BENCH=full: beside PEERS with PYTHON and HF_MODEL, and LLAMA; see tests/perf)
	@MODEL=$(MODEL) python3 tests/perf/bench.py $(B)

embedded: all ## retrain the embedded model from its recipe
	datasets/embedded/make.sh $(abspath $(B)/balora)

install-deps: ## apt-get install what the build needs, and what makes it faster (as root)
	@if [ "$$(id -u)" = 0 ]; then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(shell cat tools/packages.txt | tr '\n' ' ') && \
	{ DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(shell cat tools/packages-wanted.txt | tr '\n' ' ') || true; }; \
	else echo 'Some libraries are missing; run:'; echo '  sudo apt-get install -y $(shell cat tools/packages.txt | tr '\n' ' ')'; exit 1; fi

install: all ## copy the program to $(PREFIX)/bin
	install -D -m 755 build/release/balora $(DESTDIR)$(PREFIX)/bin/balora

clean: ## remove build/
	rm -rf build balora
