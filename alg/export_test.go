package alg

import "pptp-alg/nat"

// Holding returns how many segments wait in all connections.
func (a *ALG) Holding() int { return a.holding }

// ReplaceByte is replaceByte for tests from outside.
var ReplaceByte = replaceByte

// Remembered returns how many bytes of buffer a side's history has.
func (c *Connection) Remembered(side nat.Side) int { return cap(c.dirs[side].past.buf) }
