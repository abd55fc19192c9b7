# Collie's build. `make help` lists the targets.
SHELL := /bin/bash -o pipefail
.DEFAULT_GOAL := help
.PHONY: help build build-otelcol build-collie build-test build-stock build-upstream demo test test-deps lint check bench components image clean

VERSION ?= 0.1.0-dev+$(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
GENERATED := distribution/build
# ocb compiles with -s -w unless told otherwise; compiling outside of it, the build tags are passed here too.
BUILD_FLAGS := -trimpath -ldflags "-s -w -X main.version=$(VERSION)"
OTELCOL_FLAGS := $(BUILD_FLAGS) -tags otelcol_collie,grpcnotrace

TOOL := go tool -modfile=tools/go.mod

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

build: build-otelcol build-collie ## build bin/otelcol-collie and bin/collie

# The sources depend on the manifest and on our module's requirements, and on nothing else.
$(GENERATED)/.generated: builder-config.yaml distribution/main.go go.mod go.sum
	@echo "generating $(GENERATED) (a first build takes 3 to 9 minutes, later ones seconds)"
	go tool builder --config builder-config.yaml --skip-strict-versioning=false --skip-compilation
	mv $(GENERATED)/main.go $(GENERATED)/main.go.generated
	cp distribution/main.go $(GENERATED)/main.go
	cd $(GENERATED) && go mod tidy
	touch $@

build-otelcol: $(GENERATED)/.generated
	cd $(GENERATED) && CGO_ENABLED=0 go build $(OTELCOL_FLAGS) -o $(CURDIR)/bin/otelcol-collie .

# Two Collectors for the tests, of one manifest: one with the main that ocb generates, one with ours.
STOCK := tests/.work/thirdparty
$(STOCK)/.generated: tests/thirdparty/builder-config.yaml distribution/main.go go.mod go.sum
	mkdir -p $(@D)
	go tool builder --config tests/thirdparty/builder-config.yaml --skip-strict-versioning=false --skip-compilation
	cd $(STOCK) && mkdir -p collie && cp components.go main_others.go collie/ && cp $(CURDIR)/distribution/main.go collie/ && go mod tidy
	touch $@

build-test: $(STOCK)/.generated
	cd $(STOCK) && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o $(CURDIR)/bin/test/otelcol-thirdparty .
	cd $(STOCK)/collie && CGO_ENABLED=0 go build $(OTELCOL_FLAGS) -o $(CURDIR)/bin/test/otelcol-unruly .
	cd $(STOCK)/collie && CGO_ENABLED=0 go build $(OTELCOL_FLAGS) -ldflags "-s -w -X main.version=99.0.0" -o $(CURDIR)/bin/test/otelcol-next .

# A Collector without anything of ours, to compare with.
tests/.work/stock/.generated: tests/thirdparty/builder-config.yaml go.mod go.sum
	mkdir -p $(@D)
	sed -e '/collie-otel/d;/import: /d' -e 's|^receivers:|&\n  - gomod: go.opentelemetry.io/collector/receiver/otlpreceiver v0.159.0|' \
		-e 's|.work/thirdparty|.work/stock|;/^replaces:/d' $< > $(@D)/builder-config.yaml
	go tool builder --config $(@D)/builder-config.yaml --skip-strict-versioning=false --skip-compilation
	cd $(@D) && go mod tidy
	touch $@

build-stock: tests/.work/stock/.generated
	cd tests/.work/stock && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o $(CURDIR)/bin/test/otelcol-stock .

# Upstream's own agents: a Collector with its OpAMP extension, and its supervisor.
tests/.work/upstream/.generated: tests/upstream/builder-config.yaml go.mod go.sum
	mkdir -p $(@D)
	go tool builder --config $< --skip-strict-versioning=false --skip-compilation
	cd $(@D) && go mod tidy
	touch $@

build-upstream: tests/.work/upstream/.generated
	cd tests/.work/upstream && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o $(CURDIR)/bin/test/otelcol-upstream .
	cd tests/upstream/supervisor && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o $(CURDIR)/bin/test/opampsupervisor \
		github.com/open-telemetry/opentelemetry-collector-contrib/cmd/opampsupervisor

build-collie:
	CGO_ENABLED=0 go build $(BUILD_FLAGS) -o bin/collie ./cmd/collie

demo: build ## run a small fleet on this machine; DEMO_SECONDS=N ends it by itself
	./bin/collie demo --duration $(or $(DEMO_SECONDS),0)s

test-deps:
	scripts/install-test-deps.sh

test: build build-test build-upstream test-deps ## run everything that CI runs but lint
	go test -race ./cmd/... ./configs/... ./distribution/components/... ./distribution/image/... ./extension/... ./internal/... ./confmap/... ./receiver/...
	go test -count=1 -timeout 20m ./tests/...

lint: build ## gofumpt, go vet, staticcheck
	@files=$$(git ls-files -co --exclude-standard '*.go' | xargs $(TOOL) gofumpt -l); \
		test -z "$$files" || { echo "run gofumpt -w on:"; echo "$$files"; exit 1; }
	go vet ./...
	cd $(GENERATED) && go vet -tags otelcol_collie .
	$(TOOL) staticcheck ./...
	for script in scripts/*.sh .ci/run; do sh -n "$$script"; done

check: lint test ## all that CI does

bench: build build-test build-stock ## figures, side by side in one run (minutes)
	go test -run '^$$' -bench . -benchtime 1x -timeout 60m -v ./tests/bench ./tests/remote
	go test -run '^$$' -bench . ./internal/... ./receiver/...

image: build-otelcol ## container image with buildah; IMAGE_ARCHIVE=FILE.tar also writes it to a file
	scripts/image.sh "$(VERSION)" $(IMAGE_ARCHIVE)

components: build-otelcol ## measure each component and write docs/components.md (minutes)
	go run ./distribution/components $(OTELCOL_FLAGS)

clean: ## remove everything that was built
	rm -rf bin $(GENERATED) tests/.work
