# A stand-in for golang-package.mk of OpenWrt's packages feed: what is Go's is copied, or everything where the package asks for
# that, then built for this machine, without C.
GO_ARCH_DEPENDS := @(aarch64||arm||i386||mips||mipsel||x86_64)
GO_PKG_SRC = $(PKG_BUILD_DIR)/.go_work/src/$(GO_PKG)
GO_PKG_BIN = $(PKG_BUILD_DIR)/.go_work/bin
GO_PKG_FILES = $(if $(filter 1,$(GO_PKG_INSTALL_ALL)),-type f,-type f \( -name '*.go' -o -path '*/testdata/*' -o -name go.mod -o -name go.sum \))

define Build/Compile
	mkdir -p $(GO_PKG_SRC) $(GO_PKG_BIN)
	cd $(PKG_BUILD_DIR) && find . -path '*/.*' -prune -o $(GO_PKG_FILES) -print0 | xargs -0 cp --parents -t $(GO_PKG_SRC)
	cd $(GO_PKG_SRC) && CGO_ENABLED=0 GOFLAGS= GOBIN=$(GO_PKG_BIN) go install -trimpath -ldflags "$(foreach x,$(GO_PKG_LDFLAGS_X),-X $(x))" $(GO_PKG_BUILD_PKG)
endef

define GoPackage/Package/Install/Bin
	$(INSTALL_DIR) $(1)/usr/bin
	$(INSTALL_BIN) $(GO_PKG_BIN)/* $(1)/usr/bin/
endef

define GoBinPackage
ifndef Package/$(1)/install
Package/$(1)/install = $$(call GoPackage/Package/Install/Bin,$$(1))
endif
endef
