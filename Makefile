# pptp-alg. `make demo` shows it at work, `make test` runs everything.
# Both need Linux, Go and root: the tests make network namespaces of their own.

GO       ?= go
VERSION  ?= $(shell packaging/version)
LDFLAGS   = -s -w -X main.version=$(VERSION)
BUILD     = CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)'
GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@v1.1.4
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
BENCHSTAT   = golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da

# Packages with tests that need no kernel: they run on other machines' byte order too.
PURE      = ./alg ./nat ./conntrack ./rules ./e2e/wire ./e2e/ppp/... ./e2e/inet ./cmd/pptp-alg/internal/...
CROSS     = mips mipsle arm arm64 386
# Of these, what reads and writes numbers of so many bytes, in this or that order: a minute for three processors, without the
# tests that compute longest.
WIDTHS    = ./alg ./nat ./conntrack ./rules ./e2e/wire $(addprefix ./cmd/pptp-alg/internal/,addresses config control fastpath pcap queue state)
LONGEST   = Soak|Crashes|EveryCut|EveryTwoCuts|RandomHistories|MemoryOfAConnectionAndACall|MalformedStreams|PoolModel
# As OpenWrt's processors without a floating point unit need it; see packaging/build.
ARCHFLAGS = GOMIPS=softfloat GOARM=7,softfloat GO386=softfloat
# What packages-check builds a second time, from nothing; empty is everything.
REPRODUCED = amd64 mips
# Programs of other people that some tests compare with.
ORACLES   = nft:nftables conntrack:conntrack tcpdump:tcpdump mandoc:mandoc chromium:chromium

.PHONY: build test-fast-path install packages packages-check demo test test-vm test-vm-quick test-vm-big test-vm-all race vet fuzz bench bench-once bench-docs bench-core bench-core-baseline cross emulated emulated-all programs-emulated bpf bpf-check clang oracles licences licences-check vulnerabilities promtool clean

build: ## the daemon, in bin/
	$(BUILD) -o bin/pptp-alg ./cmd/pptp-alg
	$(BUILD) -o bin/pptp-lab ./cmd/pptp-lab

PREFIX ?= /usr/local
install: build ## the daemon and its manual pages, below $(DESTDIR)$(PREFIX)
	install -d $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)$(PREFIX)/share/man/man8 $(DESTDIR)$(PREFIX)/share/man/man5
	install -m 755 bin/pptp-alg $(DESTDIR)$(PREFIX)/sbin/
	install -m 644 docs/man/pptp-alg.8 $(DESTDIR)$(PREFIX)/share/man/man8/
	install -m 644 docs/man/pptp-alg.toml.5 $(DESTDIR)$(PREFIX)/share/man/man5/

packages: ## .deb, .rpm and .ipk for every architecture, in dist/
	packaging/build dist

packages-check: packages ## whether their contents are as committed, lintian, the unit's exposure, shellcheck, and the same bytes when built again
	packaging/check dist
	ONLY="$(REPRODUCED)" packaging/reproduce dist

demo: build ## two clients with one Call ID talk to one server through the daemon
	PPTP_ALG_BIN=$(CURDIR)/bin/pptp-alg bin/pptp-lab demo

test: build oracles ## everything
	PPTP_ALG_BIN=$(CURDIR)/bin/pptp-alg $(GO) test -count=1 -timeout 25m ./...

FASTPATH = Test(Address|Kills$$|Restart$$|Fragment|PathMTU|Hairpin|Uplinks|Silence|IdleSleeps|InterfaceDown|ConntrackTakenAway|TableTakenAway|SeveralServers|BothKindsOfCalls|PortForwarding|Tunnels)
test-fast-path: build ## the scenarios that the fast path could change, with the fast path
	PPTP_ALG_FAST_PATH=on PPTP_ALG_BIN=$(CURDIR)/bin/pptp-alg $(GO) test -count=1 -timeout 15m ./e2e -run '$(FASTPATH)'
	$(GO) vet -tags nofastpath ./cmd/pptp-alg/...

test-vm: ## what depends on the kernel, and real peers, on Debian's kernels 6.1 and 6.12 in emulated machines (half an hour or more on two processors)
	e2e/vm/test

test-vm-quick: ## of that, whether the packages work there, and two real clients, with and without the fast path (some six minutes)
	PARTS="modules text packages peers" PEERS=two_clients,fast_path e2e/vm/test

test-vm-big: ## what has a byte order, on a big-endian processor: Debian's s390x kernels 6.1 and 6.12, one after the other (half an hour or more)
	for series in 6.1-s390x 6.12-s390x; do PARTS="modules text anchor packages scenarios" e2e/vm/test $$series || exit 1; done

test-vm-all: ## that with all scenarios (an hour or more)
	SCENARIOS=. TIMEOUT=7200 e2e/vm/test

# Without the floods and the endurance test: they measure what the daemon can take, and this one is ten times slower and larger.
# Without the firewalls, where others do the work.
race: build ## the daemon and all tests but the slowest, with the race detector
	$(GO) build -race -o bin/pptp-alg-race ./cmd/pptp-alg
	GORACE=atexit_sleep_ms=0 PPTP_ALG_BIN=$(CURDIR)/bin/pptp-alg-race $(GO) test -count=1 -short -race -skip '^(TestFloods|TestEndurance|TestFirewalls)$$' -timeout 25m ./...

vet: ## go vet, gofmt, staticcheck
	@files=$$(gofmt -l .); test -z "$$files" || { echo "gofmt: $$files"; exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

licences: ## docs/third-party.md, from the modules that are linked in
	@.ci/third-party > docs/third-party.md.new && mv docs/third-party.md.new docs/third-party.md

licences-check: ## whether docs/third-party.md is what `make licences` would write
	@.ci/third-party | cmp -s - docs/third-party.md || { echo "docs/third-party.md is not current: run make licences"; exit 1; }

# Its database is on the Internet, so this is not a part of CI. Where that cannot be reached, a copy will do:
# unpack https://vuln.go.dev/vulndb.zip and give VULNDB=file:///its/directory.
VULNDB ?= https://vuln.go.dev
vulnerabilities: ## govulncheck: known vulnerabilities in what the programs call
	@$(GO) run $(GOVULNCHECK) -db $(VULNDB) ./cmd/... || { echo "govulncheck found something, or could not read its database at $(VULNDB)"; exit 1; }

FUZZTIME ?= 10s
fuzz: ## every fuzz target for FUZZTIME
	@$(GO) list ./... | while read -r pkg; do \
	  for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
	    echo "fuzz $$pkg $$target"; \
	    $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg || exit 1; \
	  done; \
	done

# BENCH=once measures everything once with small numbers, to see that it works, and keeps
# nothing; BENCH='-only data' measures one part.
BENCH ?=
bench: build ## throughput, latency, calls a second, memory, against the kernel's own PPTP helper; writes bench/results and the tables of the documents (some twenty minutes on a quiet machine)
	$(GO) build -o bin/pptp-bench ./cmd/pptp-bench
	bin/pptp-bench -program bin/pptp-alg $(patsubst once,-once,$(BENCH))

bench-once: ## every benchmark once, to see that it works
	$(GO) test -vet=off -run '^$$' -bench . -benchtime 1x ./...
	$(MAKE) bench BENCH=once

bench-docs: ## tables and curves again, from bench/results as they are
	$(GO) run ./cmd/pptp-bench -docs

bench-core: ## nanoseconds and allocations of the core, compared with bench/results/core.txt
	@mkdir -p bin
	$(GO) test -run '^$$' -bench . -benchmem -count 6 ./alg ./nat > bin/core.txt || { cat bin/core.txt; exit 1; }
	$(GO) run $(BENCHSTAT) bench/results/core.txt bin/core.txt

bench-core-baseline: ## what bench-core compares with, anew
	$(GO) test -run '^$$' -bench . -benchmem -count 6 ./alg ./nat > bench/results/core.txt

cross: ## build for routers' processors
	@for arch in $(CROSS); do \
	  $(ARCHFLAGS) GOARCH=$$arch CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/pptp-alg-$$arch ./cmd/pptp-alg || exit 1; \
	  $(ARCHFLAGS) GOARCH=$$arch CGO_ENABLED=0 $(GO) vet ./... || exit 1; \
	  size=$$(stat -c %s bin/pptp-alg-$$arch); echo "$$arch: $$size bytes"; \
	  test $$size -le 10000000 || { echo "too large for a router"; exit 1; }; \
	done

# Without privileges, since emulators know no netlink: tests that need a kernel say so and
# skip. TestDeadDaemon starts its own program, which this kernel can't without the emulator;
# TestTcpdumpReads and TestForeign need root's powers over files and users, TestProcess a /proc/self/stat that is not the emulator's.
emulated: programs-emulated ## unit tests on a big-endian machine, emulated, and on 386; the quicker half of them on the others
	$(MAKE) -s emulated-mips emulated-386
	$(MAKE) -s emulated-mipsle emulated-arm emulated-arm64 PURE='$(WIDTHS)' OMIT='$(LONGEST)'

emulated-all: programs-emulated ## unit tests on all of them, emulated but for 386
	$(MAKE) -s $(CROSS:%=emulated-%)

QEMU_mips = qemu-mips-static
QEMU_mipsle = qemu-mipsel-static
QEMU_arm = qemu-arm-static
QEMU_arm64 = qemu-aarch64-static
emulated-%:
	@command -v qemu-mips-static >/dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq qemu-user-static; } >/dev/null
	CI= GOARCH=$* $(ARCHFLAGS) CGO_ENABLED=0 $(GO) test -short -timeout 20m -skip '^Test(DeadDaemon|TcpdumpReads|Foreign|Process$(if $(OMIT),|$(OMIT)))$$' \
	  -exec 'setpriv --bounding-set=-all --inh-caps=-all $(QEMU_$*)' $(PURE)

# A 386 daemon runs on an x86 kernel, and is tried with calls.
programs-emulated: build cross ## the program on those machines: what needs no kernel is as here; calls through a 386 daemon
	@command -v qemu-mips-static >/dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq qemu-user-static; } >/dev/null
	e2e/processors bin $(CROSS)
	PPTP_ALG_BIN=$(CURDIR)/bin/pptp-alg-386 $(GO) test -count=1 ./e2e \
	  -run '^Test(OneClient|EqualCallIDs|StartAgain|Hairpin|ZonePerNetwork|AddressReplaced|StatusJSON|Drop|Tunnels)$$'

# The objects are committed, so that nobody needs a C compiler to build the daemon. Another version of clang makes others.
CLANG ?= clang-14
BPF    = cmd/pptp-alg/internal/fastpath/bpf
CLANGFLAGS = -O2 -Wall -Wextra -Werror -ffreestanding -isystem /usr/include/$(shell uname -m)-linux-gnu
bpf: clang ## the eBPF programs of the fast path, from their source, for both byte orders
	cd $(BPF) && for order in bpfel bpfeb; do $(CLANG) -target $$order $(CLANGFLAGS) -c fastpath.c -o fastpath_$$order.o || exit 1; done

bpf-check: clang ## whether the committed objects are what `make bpf` would make
	@d=$$(mktemp -d) && trap 'rm -r '$$d EXIT && cd $(BPF) && for order in bpfel bpfeb; do \
	  $(CLANG) -target $$order $(CLANGFLAGS) -c fastpath.c -o $$d/$$order.o || exit 1; \
	  cmp $$d/$$order.o fastpath_$$order.o || { echo "$(BPF)/fastpath_$$order.o is not what the source gives: run make bpf"; exit 1; }; \
	done

clang:
	@command -v $(CLANG) >/dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(CLANG) linux-libc-dev; } >/dev/null

oracles: # what the tests compare with; they say so and skip where it can't be had
	@missing=; for o in $(ORACLES); do command -v $${o%%:*} >/dev/null || missing="$$missing $${o##*:}"; done; \
	if [ -n "$$missing" ]; then echo "installing$$missing"; \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing; } >/dev/null 2>&1 \
	  || echo "could not install$$missing: tests that compare with them will say so"; fi
	@e2e/firewall/programs >/dev/null || echo "could not get the firewalls' programs: tests beside them will say so"

promtool: # checks metrics and alert rules in the tests, which say so where it is missing; 19 MB
	@command -v promtool >/dev/null || test -x bin/promtool || { d=$$(mktemp -d) && chmod 755 $$d && cd $$d && apt-get update -qq && \
	apt-get download -qq prometheus && dpkg -x prometheus_*.deb x && mkdir -p $(CURDIR)/bin && cp x/usr/bin/promtool $(CURDIR)/bin/ && rm -r $$d; }

clean:
	rm -rf bin dist
