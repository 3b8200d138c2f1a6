package conntrack

import (
	"errors"
	"fmt"
)

// Offloaded lists the TCP connections that the kernel carries past all hooks, in a flow table.
func (c *Client) Offloaded() ([]Connection, error) {
	data, err := encodeDumpStatus(StatusOffload)
	if err != nil {
		return nil, err
	}
	var found []Connection
	seen := map[uint32]bool{} // a dump may name an entry twice
	err = c.dump(data, func(f Flow) {
		// Kernels that do not filter send everything.
		if conn, ok := f.Connection(); ok && f.Status&StatusOffload != 0 && !seen[f.ID] {
			seen[f.ID] = true
			found = append(found, conn)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list offloaded connections: %w", explain(err))
	}
	return found, nil
}

// Reclaim takes a connection out of its flow table for good: its entry is replaced by one with a conntrack helper, which
// the kernel puts into no flow table. The table still carries packets for the moment that this takes, and lets go of
// the old entry within a second or so.
//
// A helper that the kernel does not know is an *UnsupportedError; the connection then has an entry without one.
// ErrNotFound: it is gone.
func (c *Client) Reclaim(conn Connection, helper string) error {
	if err := c.DeleteConnection(conn); err != nil {
		return fmt.Errorf("reclaim: %w", err)
	}
	conn.Helper, conn.Timeout = helper, EstablishedTimeout()
	_, err := c.RestoreConnection(conn)
	if err == nil {
		return nil
	}
	// Without any entry the router would reset the connection.
	conn.Helper = ""
	_, second := c.RestoreConnection(conn)
	return fmt.Errorf("reclaim: %w", errors.Join(err, second))
}
