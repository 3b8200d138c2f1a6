# A stand-in for LuCI's luci.mk.
PKG_NAME ?= $(notdir $(CURDIR))
PKG_VERSION ?= 0
include $(INCLUDE_DIR)/package.mk

define Package/$(PKG_NAME)
  SECTION:=luci
  TITLE:=$(LUCI_TITLE)
  DEPENDS:=$(LUCI_DEPENDS)
  PKGARCH:=$(LUCI_PKGARCH)
endef

define Package/$(PKG_NAME)/description
$(LUCI_DESCRIPTION)
endef

define Package/$(PKG_NAME)/install
	$(INSTALL_DIR) $(1)/www
	cp -pR htdocs/* $(1)/www/
	cp -pR root/* $(1)/
endef

$(eval $(call BuildPackage,$(PKG_NAME)))
