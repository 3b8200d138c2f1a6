// Package packaging tests what is installed beside the program: the translation
// of OpenWrt's settings, the page in LuCI, and the packages.
package packaging
