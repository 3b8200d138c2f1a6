// Package state is a file that a killed program finds again: a journal of keys and values.
//
// Changes are appended, several in one frame; a frame counts as a whole or not at all. Nothing is
// synchronised to a disk: what a process has written outlives the process, and what the journal
// describes does not outlive the machine. The header names the boot and the network namespace; a
// journal of others is as good as none.
//
// All integers are big-endian. The file:
//
//	header   "pptp-alg", version u8, length u16 of the identity, identity, CRC-32C u32 of all before it
//	frame    length u32 of the changes, CRC-32C u32 of them, changes
//	change   1 (put) u8, length of the key u8, length of the value u16, key, value
//	         2 (delete) u8, length of the key u8, key
//
// A file that ends in the middle of a frame, or has a wrong checksum, counts up to there: that is how
// a kill in the middle of a write looks. The journal does not keep what was put into it: its owner has
// that anyway, and is asked for all of it when the file has grown and is written anew.
//
// A journal is for one goroutine, and for one process: the caller has the lock for that.
package state
