package daemon

import (
	"errors"

	"pptp-alg/cmd/pptp-alg/internal/privilege"
)

// dropPrivileges gives up what only the start needed. It comes before the first
// packet is read: from then on the daemon parses what strangers send.
func (d *daemon) dropPrivileges() error {
	err := privilege.Drop(d.fast.privileges()...)
	if errors.Is(err, privilege.ErrCgo) {
		d.log.Warn("the daemon keeps the privileges that it was started with", "error", err)
		return nil
	}
	return err
}
