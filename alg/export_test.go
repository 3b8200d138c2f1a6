package alg

// Holding returns how many segments wait in all connections.
func (a *ALG) Holding() int { return a.holding }

// ReplaceByte is replaceByte for tests from outside.
var ReplaceByte = replaceByte
