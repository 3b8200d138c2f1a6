// Package privilege says whether the process may do what the daemon does.
package privilege

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ErrMissing says that CAP_NET_ADMIN is not effective, and what to do.
var ErrMissing = errors.New("the capability CAP_NET_ADMIN is missing: run it as root, " +
	"or from a systemd unit with AmbientCapabilities=CAP_NET_ADMIN, " +
	"or give it to the program with `setcap cap_net_admin=ep PATH`")

// Check returns [ErrMissing] if the calling thread cannot administer the network.
func Check() error {
	ok, err := Effective(unix.CAP_NET_ADMIN)
	if err != nil {
		return err
	}
	if !ok {
		return ErrMissing
	}
	return nil
}

// Effective reports whether the calling thread has a capability in its effective
// set.
func Effective(capability int) (bool, error) {
	// Version 3 of capget(2) fills two words of 32 capabilities each.
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false, fmt.Errorf("read capabilities: %w", err)
	}
	return data[capability/32].Effective&(1<<(capability%32)) != 0, nil
}
