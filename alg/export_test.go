package alg

import "pptp-alg/nat"

// Holding returns how many segments wait in all connections.
func (a *ALG) Holding() int { return a.budget.held }

// Remembered returns how many bytes of buffer a side's history has.
func (c *Connection) Remembered(side nat.Side) int { return cap(c.dirs[side].past.buf) }

// Remembered returns how many forwarded bytes the ALG remembers, as it counts
// them, and as they are.
func (a *ALG) Remembered() (counted, there int) {
	for _, c := range a.flows {
		for i := range c.dirs {
			there += len(c.dirs[i].past.buf)
		}
	}
	return a.budget.remembered, there
}

// Bounds of what all connections together may have.
const (
	MaxHeldTotal    = maxHeldTotal
	MaxHistoryTotal = maxHistoryTotal
	KeepHistory     = keepHistory
)
