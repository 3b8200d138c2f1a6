# A stand-in for OpenWrt's include/package.mk: the package is described in $(TOPDIR)/NAME.*, and installed below $(TOPDIR)/NAME.
PKG_BUILD_DIR ?= $(BUILD_DIR)/$(PKG_NAME)-$(PKG_VERSION)
PKG_INSTALL_DIR ?= $(PKG_BUILD_DIR)/ipkg-install

define BuildPackage
$(eval $(Package/$(1)))
.PHONY: package
package:
	$$(foreach field,SECTION CATEGORY SUBMENU TITLE DEPENDS PKGARCH,$$(file >>$(TOPDIR)/$(1).fields,$$(field)=$$($$(field))))
	$$(file >$(TOPDIR)/$(1).description,$$(Package/$(1)/description))
	$$(file >$(TOPDIR)/$(1).conffiles,$$(Package/$(1)/conffiles))
	$$(call Build/Prepare)
	$$(call Build/Compile)
	$$(call Package/$(1)/install,$(TOPDIR)/$(1))
endef
