package lab

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// ethtool hands a command to a device's driver (SIOCETHTOOL). The only place in
// the lab with a pointer inside a kernel structure.
func ethtool(fd int, device string, value *ethtoolValue) error {
	var request struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte // struct ifreq is longer than name and pointer
	}
	copy(request.name[:unix.IFNAMSIZ-1], device)
	request.data = unsafe.Pointer(value)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		return errno
	}
	return nil
}
